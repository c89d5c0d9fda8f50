// SPDX-License-Identifier: Apache-2.0
// A VM as it is being typed.
import type { Host, Seed, VM, VMSpec } from "../api/model";
import { checkDisks, checkNICs, parseDisks, parseNICs } from "./devices";
import { checkCmdline, checkKernel, checkMemory, checkName, checkPath, checkSeed, checkVCPUs, type Draft, type Finding, memoryBytes } from "./validate";

export type { Draft };

export type Findings = Partial<Record<keyof Draft, Finding>>;

/** What a new VM begins with: a guest whose console is the serial port. */
export const emptyDraft: Draft = {
  name: "",
  vcpus: "1",
  memory: "512",
  memoryUnit: "MiB",
  kernel: "",
  initrd: "",
  cmdline: "console=ttyS0",
  disks: "",
  nics: "",
  userData: "",
  networkConfig: "",
  vsock: "none",
  console: "serial",
  onReset: "restart",
  onPoweroff: "stop",
  onCrash: "stop",
};

export function checkDraft(draft: Draft, vms: readonly VM[], host?: Host): Findings {
  return {
    name: checkName(draft.name, (name) => vms.some((vm) => vm.name === name)),
    vcpus: checkVCPUs(draft.vcpus, host),
    memory: checkMemory(draft, host),
    kernel: checkKernel(draft),
    initrd: checkPath(draft.initrd, false),
    cmdline: checkCmdline(draft.cmdline),
    disks: checkDisks(draft.disks),
    nics: checkNICs(draft.nics),
    userData: checkSeed(draft.userData, draft.networkConfig),
    networkConfig: checkSeed(draft.networkConfig, draft.userData),
  };
}

/** specOf is only for a draft in which nothing is wrong. */
export function specOf(draft: Draft): VMSpec {
  const disks = parseDisks(draft.disks);
  const nics = parseNICs(draft.nics);
  return {
    vcpus: Number(draft.vcpus),
    memoryBytes: memoryBytes(draft) ?? 0,
    boot: draft.kernel
      ? {
          kernel: draft.kernel,
          ...(draft.initrd && { initrd: draft.initrd }),
          ...(draft.cmdline && { cmdline: draft.cmdline }),
        }
      : {}, // the rest is a kernel's
    ...(!("problem" in disks) && disks.length > 0 && { disks }),
    ...(!("problem" in nics) && nics.length > 0 && { nics }),
    ...(draft.vsock === "auto" && { vsock: {} }),
    console: draft.console,
    onReset: draft.onReset,
    onPoweroff: draft.onPoweroff,
    onCrash: draft.onCrash,
  };
}

/** seedOf is undefined where nothing is said: the VM has no seed then. */
export function seedOf({ userData, networkConfig }: Pick<Draft, "userData" | "networkConfig">): Seed | undefined {
  if (!userData && !networkConfig) return undefined;
  return { ...(userData && { userData }), ...(networkConfig && { networkConfig }) };
}
