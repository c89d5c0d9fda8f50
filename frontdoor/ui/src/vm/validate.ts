// SPDX-License-Identifier: Apache-2.0
// Checks of what is typed for a VM. The limits are those of the API, which
// checks again; `problem` stops the form, `warning` does not.
import type { Host } from "../api/model";

export const limits = {
  vcpus: 64,
  minMemory: 16 * 2 ** 20,
  maxMemory: 2 ** 40,
  memoryUnit: 4096,
  cmdline: 2047,
  path: 1024,
  disks: 16,
  serial: 20,
  nics: 8,
  seed: 64 * 2 ** 10,
} as const;

export interface Draft {
  name: string;
  vcpus: string;
  memory: string;
  memoryUnit: "MiB" | "GiB";
  kernel: string;
  initrd: string;
  cmdline: string;
  disks: string;
  nics: string;
  userData: string;
  networkConfig: string;
  vsock: "none" | "auto";
  console: "serial" | "virtio";
  onReset: "restart" | "stop";
  onPoweroff: "restart" | "stop";
  onCrash: "restart" | "stop";
}

export type Finding = { problem: string } | { warning: string } | undefined;

const bytesIn = { MiB: 2 ** 20, GiB: 2 ** 30 } as const;
const encoder = new TextEncoder();

export function checkName(name: string, taken: (name: string) => boolean): Finding {
  if (name === "") return { problem: "A name is needed." };
  if (name.length > 63) return { problem: "At most 63 characters." };
  if (/[A-Z]/.test(name)) return { problem: "Lower-case letters only." };
  if (!/^[a-z]/.test(name)) return { problem: "It begins with a letter." };
  const odd = /[^a-z0-9-]/u.exec(name);
  if (odd) return { problem: `Letters a–z, digits and hyphens only: “${odd[0]}” is none.` };
  if (name.endsWith("-")) return { problem: "It does not end with a hyphen." };
  if (taken(name)) return { problem: "There is a VM with this name." };
  return undefined;
}

export function checkVCPUs(text: string, host?: Host): Finding {
  const n = wholeNumber(text);
  if (n === undefined || n < 1 || n > limits.vcpus) {
    return { problem: `A whole number from 1 to ${limits.vcpus}.` };
  }
  if (host && n > host.cpus) {
    return { warning: `The host has ${host.cpus} CPUs: more than that makes the VM slower.` };
  }
  return undefined;
}

/** memoryBytes is undefined for what is no number. */
export function memoryBytes(draft: Pick<Draft, "memory" | "memoryUnit">): number | undefined {
  if (!/^\d{1,8}(\.\d{1,8})?$/.test(draft.memory.trim())) return undefined;
  return Number(draft.memory) * bytesIn[draft.memoryUnit];
}

export function checkMemory(draft: Pick<Draft, "memory" | "memoryUnit">, host?: Host): Finding {
  const bytes = memoryBytes(draft);
  if (bytes === undefined) return { problem: "A number, such as 512." };
  if (bytes < limits.minMemory) return { problem: "At least 16 MiB." };
  if (bytes > limits.maxMemory) return { problem: "At most 1024 GiB." };
  if (bytes % limits.memoryUnit !== 0) return { problem: "A multiple of 4 KiB." };
  if (host && bytes > host.memoryBytes) {
    return { warning: `More than the host has (${formatBytes(host.memoryBytes)}).` };
  }
  return undefined;
}

export function checkPath(path: string, needed: boolean, folder = "boot folder"): Finding {
  if (path === "") return needed ? { problem: `A file in the host’s ${folder} is needed.` } : undefined;
  if (encoder.encode(path).length > limits.path) return { problem: "At most 1024 bytes." };
  if (hasControl(path)) return { problem: "No control characters." };
  if (path.split("/").includes("..")) return { problem: `No “..”: only files in the ${folder}.` };
  if (path.endsWith("/")) return { problem: "A file, not a folder." };
  return undefined;
}

/** checkKernel wants a kernel where there is no disk to boot from. */
export function checkKernel(draft: Pick<Draft, "kernel" | "disks">): Finding {
  if (draft.kernel === "" && draft.disks.trim() === "") return { problem: "A kernel or a disk is needed." };
  return checkPath(draft.kernel, false);
}

/** checkSeed looks at one text of a seed; `others` are the rest of it. */
export function checkSeed(text: string, ...others: string[]): Finding {
  if (text.includes("\0")) return { problem: "No NUL characters: it is a text." };
  const size = [text, ...others].reduce((sum, t) => sum + encoder.encode(t).length, 0);
  if (text !== "" && size > limits.seed) return { problem: `At most 64 KiB with the other text; this is ${formatBytes(size)}.` };
  return undefined;
}

export function checkCmdline(cmdline: string): Finding {
  const size = encoder.encode(cmdline).length;
  if (size > limits.cmdline) {
    return { problem: `At most ${limits.cmdline} bytes; this is ${size}.` };
  }
  if (hasControl(cmdline)) return { problem: "One line, no control characters." };
  return undefined;
}

/** formatBytes: the largest binary unit with at most two digits behind the point. */
export function formatBytes(bytes: number): string {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) {
    bytes /= 1024;
    unit++;
  }
  return `${Number(bytes.toFixed(2))} ${units[unit]}`;
}

function wholeNumber(text: string): number | undefined {
  return /^\d{1,6}$/.test(text.trim()) ? Number(text) : undefined;
}

const hasControl = (text: string) => /[\u0000-\u001f\u007f]/.test(text);
