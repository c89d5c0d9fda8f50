// SPDX-License-Identifier: Apache-2.0
// What a form makes of a VM that is there, and how that is asked for.
import type { DiskSpec, Host, NICSpec, VM, VMChange, VMSpec } from "../api/model";
import { diskLine, firmDisk, firmNIC, nicLine, parseDisks, parseNICs, sameDevices } from "./devices";
import { checkDraft, type Draft, emptyDraft, type Findings, specOf } from "./draft";
import { named } from "./power";

/** A VM's name and spec as they are to be. */
export interface Wanted {
  name: string;
  spec: VMSpec;
}

export function draftOf({ name, spec }: Wanted): Draft {
  const gibi = spec.memoryBytes / 2 ** 30;
  return {
    ...emptyDraft,
    name,
    vcpus: String(spec.vcpus),
    memory: String(Number.isInteger(gibi) ? gibi : gibi * 1024),
    memoryUnit: Number.isInteger(gibi) ? "GiB" : "MiB",
    kernel: spec.boot?.kernel ?? "",
    initrd: spec.boot?.initrd ?? "",
    cmdline: spec.boot?.cmdline ?? "",
    disks: (spec.disks ?? []).map((disk) => diskLine(named(disk).disk)).join("\n"),
    nics: (spec.nics ?? []).map(nicLine).join("\n"),
    vsock: spec.vsock ? "auto" : "none",
    console: spec.console,
    onReset: spec.onReset,
    onPoweroff: spec.onPoweroff,
    onCrash: spec.onCrash,
  };
}

/** The fields of the form that each field of a spec comes from. */
const sources: Record<keyof VMSpec, readonly (keyof Draft)[]> = {
  vcpus: ["vcpus"],
  memoryBytes: ["memory", "memoryUnit"],
  balloonBytes: [], // the form has none: it stays
  boot: ["kernel", "initrd", "cmdline"],
  disks: ["disks"],
  nics: ["nics"],
  vsock: ["vsock"],
  console: ["console"],
  onReset: ["onReset"],
  onPoweroff: ["onPoweroff"],
  onCrash: ["onCrash"],
};

/** wantedOf is only for a draft in which nothing is wrong. What was not touched stays as it is, also where a form cannot say it. */
export function wantedOf(draft: Draft, vm: Wanted): Wanted {
  const was = draftOf(vm);
  const typed = specOf(draft);
  const disks = typed.disks?.map((disk, i) => keepDisk(disk, vm.spec.disks?.[i]));
  const nics = typed.nics?.map((nic, i) => keepNIC(nic, vm.spec.nics?.[i]));
  const next = { ...typed, disks, nics };
  const spec = { ...vm.spec };
  for (const [field, from] of Object.entries(sources) as [keyof VMSpec, (keyof Draft)[]][]) {
    if (from.some((f) => draft[f] !== was[f])) Object.assign(spec, { [field]: next[field] });
  }
  return { name: draft.name, spec };
}

const keepDisk = (disk: DiskSpec, was: DiskSpec | undefined): DiskSpec =>
  was && firmDisk(disk) === firmDisk(named(was).disk) ? { ...was, limit: disk.limit } : disk;

/** keepNIC: a card that is given without an address keeps that of the one that was there, as the server has it. */
const keepNIC = (nic: NICSpec, was: NICSpec | undefined): NICSpec => (was?.mac && !nic.mac ? { ...nic, mac: was.mac } : nic);

/** up: a guest is there to see changes. */
const up = ({ status }: VM) => status.state !== "off";

/** frozen: no more than limits, links and what follows an end can change. */
export const frozen = (vm: VM) => up(vm) || vm.status.saved !== undefined;

/** locked: the field cannot change in the VM's state. */
export function locked(vm: VM, field: keyof Draft): boolean {
  if (field === "name") return up(vm);
  return frozen(vm) && !["disks", "nics", "onPoweroff", "onCrash"].includes(field);
}

/** touched: it differs from what it was; a number of memory goes with its unit. */
export const touched = (field: keyof Draft, draft: Draft, was: Draft): boolean =>
  draft[field] !== was[field] || (field === "memory" && draft.memoryUnit !== was.memoryUnit);

/**
 * checkChange looks at a draft for the VM as it was when the draft was begun; `now` is the
 * VM as it is. What is not touched is not complained about: the server has it so already.
 */
export function checkChange(draft: Draft, vm: VM, now: VM, vms: readonly VM[], host?: Host): Findings {
  const was = draftOf(vm);
  const others = vms.filter(({ id }) => id !== vm.id);
  const findings = checkDraft(draft, others, host);
  const before = checkDraft(was, others, host);
  for (const field of Object.keys(draft) as (keyof Draft)[]) {
    if (field === "memoryUnit") continue;
    const changed = touched(field, draft, was);
    if (!changed && JSON.stringify(findings[field]) === JSON.stringify(before[field])) delete findings[field];
    if (changed && locked(now, field)) findings[field] = { problem: `This cannot change while ${now.name} is ${stateText(now)}.` };
  }
  if (!frozen(now)) return findings;
  const disks = parseDisks(draft.disks);
  if (touched("disks", draft, was) && !("problem" in disks) && !sameDevices(disks, (vm.spec.disks ?? []).map((disk) => named(disk).disk), firmDisk)) {
    findings.disks = { problem: `Only the limits of disks can change while ${now.name} is ${stateText(now)}.` };
  }
  const nics = parseNICs(draft.nics);
  if (touched("nics", draft, was) && !("problem" in nics)) {
    const cards = nics.map((nic, i) => keepNIC(nic, vm.spec.nics?.[i]));
    if (!sameDevices(cards, vm.spec.nics ?? [], firmNIC)) {
      findings.nics = { problem: `Only the limits and links of network cards can change while ${now.name} is ${stateText(now)}.` };
    }
  }
  return findings;
}

export const stateText = ({ status }: VM) => (status.saved ? "saved" : status.state);

/** changeOf is what to send; a change of nothing is empty. */
export function changeOf(vm: Wanted, wanted: Wanted): VMChange {
  const spec = mergePatch(vm.spec as Fields, wanted.spec as Fields);
  return {
    ...(wanted.name !== vm.name && { name: wanted.name }),
    ...(Object.keys(spec).length > 0 && { spec }),
  };
}

/** etag of the VM as it was looked at: a change is refused if it has another by then. */
export const etag = (vm: VM) => `"${vm.generation}"`;

type Fields = Record<string, unknown>;

const isObject = (value: unknown): value is Fields => typeof value === "object" && value !== null && !Array.isArray(value);

/** mergePatch makes a patch of RFC 7396: lists are given whole, and null is what goes away. */
function mergePatch(from: Fields, to: Fields): Fields {
  const patch: Fields = {};
  for (const key of new Set([...Object.keys(from), ...Object.keys(to)])) {
    const [was, is] = [from[key], to[key]];
    if (same(was, is)) continue;
    patch[key] = is === undefined ? null : isObject(was) && isObject(is) ? mergePatch(was, is) : is;
  }
  return patch;
}

/** same: a field that is undefined is one that is left out. */
function same(a: unknown, b: unknown): boolean {
  if (typeof a !== "object" || typeof b !== "object" || !a || !b) return a === b;
  return Array.isArray(a) === Array.isArray(b) &&
    [...new Set([...Object.keys(a), ...Object.keys(b)])].every((key) => same((a as Fields)[key], (b as Fields)[key]));
}
