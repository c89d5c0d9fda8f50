// SPDX-License-Identifier: Apache-2.0
// How events change the lists that the page holds. Pure: the lists come from
// the API with the number of the last event they hold, and each event counts
// once, however often it is delivered.
import type { Event, LastStop, Task, VM, VMStatus } from "../api/model";

/** VMs by id, as of event `seq`. */
export interface VMs {
  readonly seq: number;
  readonly byId: ReadonlyMap<string, VM>;
}

/** The latest tasks, newest first, as of event `seq`. */
export interface Tasks {
  readonly seq: number;
  readonly items: readonly Task[];
}

/** How many tasks the page keeps. */
export const maxTasks = 200;

/** applyToVMs returns the list after the events; VMs that none of them is about stay the same objects. */
export function applyToVMs(list: VMs, events: readonly Event[]): VMs {
  const fresh = events.filter((e) => e.seq > list.seq);
  if (fresh.length === 0) return list;
  let byId: Map<string, VM> | undefined;
  for (const event of fresh) {
    if (!event.vm) continue;
    const before = (byId ?? list.byId).get(event.vm.id);
    const after = changedVM(before, event);
    if (after === before) continue;
    byId ??= new Map(list.byId);
    if (after) byId.set(event.vm.id, after);
    else byId.delete(event.vm.id);
  }
  return { seq: last(fresh), byId: byId ?? list.byId };
}

function changedVM(vm: VM | undefined, event: Event): VM | undefined {
  switch (event.kind) {
    case "vm.created":
    case "vm.changed":
      return isVM(event.data) ? event.data : vm;
    case "vm.deleted":
      return undefined;
    case "vm.state":
      return vm && isStatus(event.data) ? { ...vm, status: event.data, updatedAt: event.time } : vm;
    case "vm.stopped":
      return vm && isStop(event.data)
        ? { ...vm, status: { ...vm.status, lastStop: event.data } }
        : vm;
    default:
      return vm;
  }
}

/** applyToTasks returns the list after the events. */
export function applyToTasks(list: Tasks, events: readonly Event[]): Tasks {
  const fresh = events.filter((e) => e.seq > list.seq);
  if (fresh.length === 0) return list;
  let items = list.items;
  for (const event of fresh) {
    if (event.kind === "task.changed" && isTask(event.data)) items = withTask(items, event.data);
  }
  return { seq: last(fresh), items };
}

function withTask(items: readonly Task[], task: Task): readonly Task[] {
  if (items.some((t) => t.id === task.id)) return items.map((t) => (t.id === task.id ? task : t));
  return [task, ...items]
    .sort((a, b) => b.createdAt.localeCompare(a.createdAt))
    .slice(0, maxTasks);
}

const last = (events: readonly Event[]) => Math.max(...events.map((e) => e.seq));

// The data of an event is checked for the fields that the page would fail
// without: a newer server may send kinds and fields that this page never saw.
const isObject = (data: unknown): data is Record<string, unknown> =>
  typeof data === "object" && data !== null;

const isStatus = (data: unknown): data is VMStatus =>
  isObject(data) && typeof data.state === "string" && Array.isArray(data.allowed);

const isVM = (data: unknown): data is VM =>
  isObject(data) &&
  typeof data.id === "string" &&
  typeof data.name === "string" &&
  isObject(data.spec) &&
  (data.spec.boot === undefined || isObject(data.spec.boot)) &&
  isStatus(data.status);

const isStop = (data: unknown): data is LastStop =>
  isObject(data) && typeof data.reason === "string";

const isTask = (data: unknown): data is Task =>
  isObject(data) &&
  typeof data.id === "string" &&
  typeof data.kind === "string" &&
  typeof data.state === "string" &&
  typeof data.createdAt === "string";
