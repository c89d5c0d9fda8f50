// SPDX-License-Identifier: Apache-2.0
// Fetches the lists that the event stream then keeps up to date.
import { api, take } from "../api/client";
import type { Task, VM } from "../api/model";
import type { Journal } from "./journal";
import { applyToTasks, applyToVMs, type Tasks, type VMs } from "./reduce";

export const vmsKey = ["vms"] as const;
export const tasksKey = ["tasks"] as const;

const pageSize = 200;
/** A list that a busy host outruns this often is shown as it is; events go on. */
const maxRounds = 3;

/** fetchVMs reads all pages, and adds what happened meanwhile. */
export async function fetchVMs(journal: Journal, signal: AbortSignal): Promise<VMs> {
  let list: VMs;
  let round = 0;
  do {
    list = await allPages(signal);
    round++;
  } while (!journal.covers(list.seq) && round < maxRounds);
  return applyToVMs(list, journal.all());
}

async function allPages(signal: AbortSignal): Promise<VMs> {
  const byId = new Map<string, VM>();
  let seq: number | undefined;
  let cursor: string | undefined;
  do {
    const query = { limit: pageSize, ...(cursor && { cursor }) };
    const page = await take(api.GET("/v1/vms", { params: { query }, signal }));
    for (const vm of page.items) byId.set(vm.id, vm);
    // Events count from the first page on: those that a later page holds
    // already come out the same when they are applied again.
    seq ??= page.eventSeq;
    cursor = page.nextCursor;
  } while (cursor);
  return { seq, byId };
}

/** fetchTasks reads the latest page, and adds what happened meanwhile. */
export async function fetchTasks(journal: Journal, signal: AbortSignal): Promise<Tasks> {
  const query = { limit: 100 };
  const page = await take(api.GET("/v1/tasks", { params: { query }, signal }));
  return applyToTasks({ seq: page.eventSeq, items: page.items }, journal.all());
}

/** withTask puts in a task that a request was answered with, unless an event was faster. */
export function withTask(list: Tasks | undefined, task: Task): Tasks | undefined {
  if (!list || list.items.some((t) => t.id === task.id)) return list;
  return { ...list, items: [task, ...list.items] };
}

/** withChange takes in what a change was answered with, unless an event was faster. Its status may be old. */
export function withChange(list: VMs | undefined, changed: VM): VMs | undefined {
  const vm = list?.byId.get(changed.id);
  if (!list || !vm || vm.generation >= changed.generation) return list;
  return { ...list, byId: new Map(list.byId).set(vm.id, { ...changed, status: vm.status }) };
}
