// SPDX-License-Identifier: Apache-2.0
// The command lines that do what a form or a button does: nothing here is done
// that the API does not offer to everyone.
import type { DiskSpec, Seed, Verb, VMSpec } from "../api/model";

export interface Lines {
  vmctl: string;
  curl: string;
}

const host = "http://localhost";
const curl = "curl --unix-socket /run/vmctl/api.sock";

/** quote makes a word that a POSIX shell reads as it is. */
export function quote(word: string): string {
  if (word !== "" && /^[A-Za-z0-9_./:=@%+,-]+$/.test(word)) return word;
  return `'${word.replaceAll("'", `'\\''`)}'`;
}

/** createLines: vmctl reads a seed's texts from files, which have cloud-init's names here. */
export function createLines(name: string, spec: VMSpec, seed?: Seed): Lines {
  const { kernel, initrd, cmdline } = spec.boot ?? {};
  const words = ["vmctl vm create", quote(name), "--vcpus", spec.vcpus, "--memory", memory(spec.memoryBytes)];
  if (kernel) words.push("--kernel", quote(kernel));
  if (initrd) words.push("--initrd", quote(initrd));
  if (cmdline) words.push("--cmdline", quote(cmdline));
  for (const disk of spec.disks ?? []) words.push("--disk", quote(diskWord(disk)));
  for (const nic of spec.nics ?? []) words.push("--nic", quote(nic.bridge + (nic.mac ? `,mac=${nic.mac}` : "")));
  if (seed?.userData) words.push("--user-data user-data");
  if (seed?.networkConfig) words.push("--network-config network-config");
  if (spec.vsock) words.push(`--vsock=${spec.vsock.cid ?? "auto"}`);
  if (spec.console && spec.console !== "serial") words.push("--console", spec.console);
  if (spec.onReset && spec.onReset !== "restart") words.push("--on-reset", spec.onReset);
  if (spec.onPoweroff && spec.onPoweroff !== "stop") words.push("--on-poweroff", spec.onPoweroff);
  if (spec.onCrash && spec.onCrash !== "stop") words.push("--on-crash", spec.onCrash);
  const body = JSON.stringify({ name, spec, ...(seed && { seed }) });
  return {
    vmctl: words.join(" "),
    curl: `${curl} -H 'Content-Type: application/json' -d ${quote(body)} ${host}/v1/vms`,
  };
}

const vmctlVerb: Record<Verb, string> = {
  powerOn: "vm on",
  powerOff: "vm off",
  shutdown: "vm shutdown",
  reset: "vm reset",
  pause: "vm pause",
  resume: "vm resume",
  save: "vm save",
  snapshot: "vm snapshot",
  merge: "vm merge",
  delete: "vm delete",
  consoleToken: "console",
};

export function verbLines(name: string, verb: Verb, disk = 0): Lines {
  if (verb === "snapshot" || verb === "merge") {
    return {
      vmctl: `vmctl ${vmctlVerb[verb]} ${quote(name)} ${disk}`,
      curl: `${curl} -X POST ${host}/v1/vms/${name}/disks/${disk}:${verb}`,
    };
  }
  const path = verb === "delete" ? `-X DELETE ${host}/v1/vms/${name}` : `-X POST ${host}/v1/vms/${name}:${verb}`;
  return { vmctl: `vmctl ${vmctlVerb[verb]} ${quote(name)}`, curl: `${curl} ${path}` };
}

/** diskWord is what --disk takes. */
export const diskWord = (disk: DiskSpec): string =>
  disk.path + (disk.readOnly ? ",ro" : "") + (disk.serial ? `,serial=${disk.serial}` : "") +
  (disk.format ? `,format=${disk.format}` : "") +
  (disk.backing ?? []).map(({ path, format }) => `,backing=${format ?? "raw"}:${path}`).join("");

/** memory in the units of --memory: M and G are binary. */
function memory(bytes: number | undefined): string {
  const mebi = (bytes ?? 0) / 2 ** 20;
  if (Number.isInteger(mebi / 1024)) return `${mebi / 1024}G`;
  return Number.isInteger(mebi) ? `${mebi}M` : `${(bytes ?? 0) / 1024}K`;
}
