// SPDX-License-Identifier: Apache-2.0
// The one table of what can be asked of a VM. The server has the last word in
// status.allowed; the table says why a button is off.
import type { DiskSpec, NICSpec, Role, State, Verb, VM } from "../api/model";

export type Device = { disk: DiskSpec } | { nic: NICSpec };

interface VerbRule {
  /** On the button. */
  label: string;
  /** Only a VM that is … can be …: the past participle of the verb. */
  done: string;
  states: readonly State[];
  role: Role;
}

/** As package vm of the daemon draws its states. */
export const verbs: Record<Verb, VerbRule> = {
  powerOn: { label: "Power on", done: "powered on", states: ["off", "stopping"], role: "operator" },
  powerOff: {
    label: "Power off",
    done: "powered off",
    states: ["starting", "running", "paused"],
    role: "operator",
  },
  shutdown: { label: "Shut down", done: "shut down", states: ["running"], role: "operator" },
  reset: { label: "Reset", done: "reset", states: ["running"], role: "operator" },
  pause: { label: "Pause", done: "paused", states: ["running"], role: "operator" },
  resume: { label: "Resume", done: "resumed", states: ["paused"], role: "operator" },
  save: { label: "Save", done: "saved", states: ["running"], role: "operator" },
  snapshot: { label: "Snapshot", done: "snapshotted", states: ["off", "running", "paused"], role: "operator" },
  merge: { label: "Merge", done: "merged", states: ["running", "paused"], role: "operator" },
  attachDisk: { label: "Attach a disk", done: "given a disk", states: ["off", "running", "paused"], role: "admin" },
  detachDisk: { label: "Detach", done: "rid of a disk", states: ["off", "running"], role: "admin" },
  attachNic: { label: "Attach a card", done: "given a network card", states: ["off", "running", "paused"], role: "admin" },
  detachNic: { label: "Detach", done: "rid of a network card", states: ["off", "running"], role: "admin" },
  consoleToken: {
    label: "Console",
    done: "opened on its console",
    states: ["off", "starting", "running", "paused"],
    role: "operator",
  },
  delete: { label: "Delete", done: "deleted", states: ["off"], role: "admin" },
};

/** What loses nothing is done without a question. */
export const harmless = (verb: Verb) => ["powerOn", "pause", "resume", "save", "snapshot"].includes(verb);

export type Gate = { open: true } | { open: false; reason: string };

const rank: Record<Role, number> = { viewer: 1, operator: 2, admin: 3 };

/** hasRole: unknown roles (undefined) close nothing, the server decides anyway. */
export function hasRole(roles: readonly Role[] | undefined, role: Role): boolean {
  return !roles || roles.some((r) => (rank[r] ?? 0) >= rank[role]);
}

/** roleGate is open for who has the role. */
export function roleGate(roles: readonly Role[] | undefined, role: Role): Gate {
  if (hasRole(roles, role)) return { open: true };
  return { open: false, reason: `This needs the role ${role}; ask an administrator for it.` };
}

/** gate decides whether a button is on, and if not, why. */
export function gate(vm: VM, verb: Verb, roles: readonly Role[] | undefined): Gate {
  const rule = verbs[verb];
  const may = roleGate(roles, rule.role);
  if (!may.open || vm.status.allowed.includes(verb)) return may;
  const wrong = stateGate(vm, rule.states, rule.done);
  if (!wrong.open) return wrong;
  return {
    open: false,
    reason: `${vm.name} is ${vm.status.state}, but the server does not allow this at the moment: another task may be under way.`,
  };
}

/** diskGate is gate for a disk of the VM. */
export function diskGate(vm: VM, verb: "snapshot" | "merge", disk: DiskSpec, roles: readonly Role[] | undefined): Gate {
  if (verb === "snapshot" && disk.readOnly) return { open: false, reason: "It is only read: it stays as it is." };
  if (verb === "merge" && !disk.backing?.[0]?.own) {
    return { open: false, reason: "Only a snapshot above another one can be merged." };
  }
  return gate(vm, verb, roles);
}

/** detachGate is gate for a disk or a card to let go of. */
export function detachGate(vm: VM, device: Device, roles: readonly Role[] | undefined): Gate {
  if ("disk" in device && named(device.disk).snapshots > 0) {
    return { open: false, reason: "It has snapshots, whose files would be lost." };
  }
  return gate(vm, "disk" in device ? "detachDisk" : "detachNic", roles);
}

/** named is a disk as it was named, without the overlays of its snapshots, and how many those are. */
export function named(disk: DiskSpec): { disk: DiskSpec; snapshots: number } {
  const { serial, readOnly, limit } = disk;
  const chain = [{ path: disk.path, format: disk.format, own: disk.own }, ...(disk.backing ?? [])];
  const snapshots = chain.findIndex(({ own }) => !own);
  const [top, ...rest] = chain.slice(snapshots);
  if (snapshots < 1 || !top) return { disk, snapshots: 0 };
  return {
    disk: {
      path: top.path,
      ...(readOnly && { readOnly }),
      ...(serial && { serial }),
      ...(top.format && { format: top.format }),
      ...(rest.length > 0 && { backing: rest }),
      ...(limit && { limit }),
    },
    snapshots,
  };
}

/** changeGate is the same for a change, which is no verb. */
export function changeGate(vm: VM, roles: readonly Role[] | undefined): Gate {
  const may = roleGate(roles, "admin");
  return may.open ? stateGate(vm, ["off", "running", "paused"], "changed") : may;
}

function stateGate(vm: VM, states: readonly State[], done: string): Gate {
  if (states.includes(vm.status.state)) return { open: true };
  return { open: false, reason: `Only a VM that is ${orList(states)} can be ${done}; ${vm.name} is ${vm.status.state}.` };
}

function orList(words: readonly string[]): string {
  if (words.length < 2) return words.join("");
  return `${words.slice(0, -1).join(", ")} or ${words.at(-1)}`;
}
