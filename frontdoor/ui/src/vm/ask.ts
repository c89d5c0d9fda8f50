// SPDX-License-Identifier: Apache-2.0
// Asks the server to do something with a VM.
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { api, newKey, take } from "../api/client";
import type { ConsoleMode, DiskSpec, NICSpec, Seed, Task, Verb, VM, VMChange, VMSpec } from "../api/model";
import { tasksKey, vmsKey, withChange, withTask } from "../live/lists";
import type { Tasks, VMs } from "../live/reduce";
import { etag } from "./change";

/** What ends in a task; console tokens are asked for by the console. */
export type Deed = Exclude<Verb, "consoleToken" | Plug["verb"]>;

/** A device that is to come, or to go. */
export type Plug =
  | { verb: "attachDisk"; disk: DiskSpec }
  | { verb: "detachDisk"; path: string }
  | { verb: "attachNic"; nic: NICSpec }
  | { verb: "detachNic"; mac: string };

async function askToPlug(vm: VM, plug: Plug): Promise<Task> {
  const params = { path: { id: vm.id }, header: newKey() };
  switch (plug.verb) {
    case "attachDisk":
      return (await take(api.POST("/v1/vms/{id}:attachDisk", { params, body: { disk: plug.disk } }))).task;
    case "detachDisk":
      return (await take(api.POST("/v1/vms/{id}:detachDisk", { params, body: { path: plug.path } }))).task;
    case "attachNic":
      return (await take(api.POST("/v1/vms/{id}:attachNic", { params, body: { nic: plug.nic } }))).task;
    case "detachNic":
      return (await take(api.POST("/v1/vms/{id}:detachNic", { params, body: { mac: plug.mac } }))).task;
  }
}

async function ask(vm: VM, deed: Deed, disk: number): Promise<Task> {
  const path = { id: vm.id };
  const ofDisk = { params: { path: { ...path, disk }, header: newKey() } };
  switch (deed) {
    case "delete":
      return (await take(api.DELETE("/v1/vms/{id}", { params: { path } }))).task;
    case "powerOn":
      return (await take(api.POST("/v1/vms/{id}:powerOn", { params: { path, header: newKey() } }))).task;
    case "powerOff":
      return (await take(api.POST("/v1/vms/{id}:powerOff", { params: { path, header: newKey() } }))).task;
    case "shutdown":
      return (await take(api.POST("/v1/vms/{id}:shutdown", { params: { path, header: newKey() } }))).task;
    case "pause":
      return (await take(api.POST("/v1/vms/{id}:pause", { params: { path, header: newKey() } }))).task;
    case "resume":
      return (await take(api.POST("/v1/vms/{id}:resume", { params: { path, header: newKey() } }))).task;
    case "save":
      return (await take(api.POST("/v1/vms/{id}:save", { params: { path, header: newKey() } }))).task;
    case "snapshot":
      return (await take(api.POST("/v1/vms/{id}/disks/{disk}:snapshot", ofDisk))).task;
    case "merge":
      return (await take(api.POST("/v1/vms/{id}/disks/{disk}:merge", ofDisk))).task;
    case "reset":
      return (await take(api.POST("/v1/vms/{id}:reset", { params: { path, header: newKey() } }))).task;
  }
}

/** useDeed asks, and shows the task at once. What becomes of the VM comes by events. */
export function useDeed(vm: VM, deed: Deed, disk = 0) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: () => ask(vm, deed, disk),
    onSuccess: (task) => client.setQueryData<Tasks>(tasksKey, (list) => withTask(list, task)),
  });
}

/** usePlug is useDeed for a device that is to come, or to go. */
export function usePlug(vm: VM, onSuccess: () => void) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (plug: Plug) => askToPlug(vm, plug),
    onSuccess: (task) => {
      client.setQueryData<Tasks>(tasksKey, (list) => withTask(list, task));
      onSuccess();
    },
  });
}

/** createVM: a key makes the same request safe to repeat. */
export const createVM = (body: { name: string; spec: VMSpec; seed?: Seed }, key: { "Idempotency-Key": string }) =>
  take(api.POST("/v1/vms", { body, params: { header: key } }));

/** useChange changes a VM that is still the one that was looked at. */
export function useChange(vm: VM, onSuccess?: () => void) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (body: VMChange) =>
      take(
        api.PATCH("/v1/vms/{id}", {
          params: { path: { id: vm.id }, header: { "If-Match": etag(vm) } },
          headers: { "Content-Type": "application/merge-patch+json" },
          body,
        }),
      ),
    onSuccess: (changed) => {
      client.setQueryData<VMs>(vmsKey, (list) => withChange(list, changed));
      onSuccess?.();
    },
  });
}

export const getVM = (id: string) => take(api.GET("/v1/vms/{id}", { params: { path: { id } } }));

export const consoleToken = (id: string, mode: ConsoleMode) =>
  take(api.POST("/v1/vms/{id}:consoleToken", { params: { path: { id } }, body: { mode } }));
