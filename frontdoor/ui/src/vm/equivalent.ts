// SPDX-License-Identifier: Apache-2.0
// The command lines that do what a form or a button does: nothing here is done
// that the API does not offer to everyone.
import type { Seed, Verb, VM, VMSpec } from "../api/model";
import type { Plug } from "./ask";
import { changeOf, etag, type Wanted } from "./change";
import { diskLimits, diskLine, firmDisk, firmNIC, nicLimits, nicLine, printSize, sameDevices } from "./devices";

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
  const words = ["vmctl vm create", quote(name), "--vcpus", spec.vcpus, "--memory", printSize(spec.memoryBytes)];
  if (kernel) words.push("--kernel", quote(kernel));
  if (initrd) words.push("--initrd", quote(initrd));
  if (cmdline) words.push("--cmdline", quote(cmdline));
  for (const disk of spec.disks ?? []) words.push("--disk", quote(diskLine(disk)));
  for (const nic of spec.nics ?? []) words.push("--nic", quote(nicLine(nic)));
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

/** changeLines: devices that stay but for limits and links are not given whole. */
export function changeLines(vm: VM, wanted: Wanted): Lines {
  const words = ["vmctl vm set", quote(vm.name)];
  const [was, is] = [vm.spec, wanted.spec];
  const say = (flag: string, before: unknown, now: string | number | undefined) => {
    if (before !== now) words.push(flag, quote(String(now ?? "")));
  };
  say("--name", vm.name, wanted.name);
  say("--vcpus", was.vcpus, is.vcpus);
  say("--memory", printSize(was.memoryBytes), printSize(is.memoryBytes));
  say("--kernel", was.boot?.kernel, is.boot?.kernel);
  say("--initrd", was.boot?.initrd, is.boot?.initrd);
  say("--cmdline", was.boot?.cmdline, is.boot?.cmdline);
  const [oldDisks, disks] = [was.disks ?? [], is.disks ?? []];
  if (!sameDevices(oldDisks, disks, firmDisk)) {
    for (const line of disks.length > 0 ? disks.map(diskLine) : [""]) words.push("--disk", quote(line));
  } else {
    disks.forEach((disk, i) => {
      const old = oldDisks[i];
      if (old && diskLimits(disk) !== diskLimits(old)) words.push("--disk-limit", i + diskLimits(disk));
    });
  }
  const [oldNICs, nics] = [was.nics ?? [], is.nics ?? []];
  if (!sameDevices(oldNICs, nics, firmNIC)) {
    for (const line of nics.length > 0 ? nics.map(nicLine) : [""]) words.push("--nic", quote(line));
  } else {
    nics.forEach((nic, i) => {
      const old = oldNICs[i];
      if (old && nicLimits(nic) !== nicLimits(old)) words.push("--nic-limit", i + nicLimits(nic));
      if (!nic.linkDown !== !old?.linkDown) words.push("--link", `${i}=${nic.linkDown ? "down" : "up"}`);
    });
  }
  if (!was.vsock !== !is.vsock) words.push(is.vsock ? "--vsock=auto" : "--vsock=");
  say("--console", was.console, is.console);
  say("--on-reset", was.onReset, is.onReset);
  say("--on-poweroff", was.onPoweroff, is.onPoweroff);
  say("--on-crash", was.onCrash, is.onCrash);
  const ifMatch = quote(`If-Match: ${etag(vm)}`);
  const body = quote(JSON.stringify(changeOf(vm, wanted)));
  return {
    vmctl: words.join(" "),
    curl: `${curl} -X PATCH -H 'Content-Type: application/merge-patch+json' -H ${ifMatch} -d ${body} ${host}/v1/vms/${vm.name}`,
  };
}

const vmctlVerb: Record<Exclude<Verb, Plug["verb"]>, string> = {
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

/** plugLines: what is asked for is the body, but for its verb. */
export function plugLines(name: string, { verb, ...body }: Plug): Lines {
  const words: Record<Plug["verb"], string> = {
    attachDisk: "vm attach-disk",
    detachDisk: "vm detach-disk",
    attachNic: "vm attach-nic",
    detachNic: "vm detach-nic",
  };
  const device = "disk" in body ? diskLine(body.disk) : "nic" in body ? nicLine(body.nic) : "path" in body ? body.path : body.mac;
  return {
    vmctl: `vmctl ${words[verb]} ${quote(name)} ${quote(device)}`,
    curl: `${curl} -H 'Content-Type: application/json' -d ${quote(JSON.stringify(body))} ${host}/v1/vms/${name}:${verb}`,
  };
}

export function verbLines(name: string, verb: Exclude<Verb, Plug["verb"]>, disk = 0): Lines {
  if (verb === "snapshot" || verb === "merge") {
    return {
      vmctl: `vmctl ${vmctlVerb[verb]} ${quote(name)} ${disk}`,
      curl: `${curl} -X POST ${host}/v1/vms/${name}/disks/${disk}:${verb}`,
    };
  }
  const path = verb === "delete" ? `-X DELETE ${host}/v1/vms/${name}` : `-X POST ${host}/v1/vms/${name}:${verb}`;
  return { vmctl: `vmctl ${vmctlVerb[verb]} ${quote(name)}`, curl: `${curl} ${path}` };
}
