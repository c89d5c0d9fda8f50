// SPDX-License-Identifier: Apache-2.0
// VMs, tasks and events for tests.
import type { Event, Task, VM, VMStatus } from "../api/model";

const time = "2026-01-02T03:04:05Z";

export function makeVM(name: string, status: Partial<VMStatus> = {}): VM {
  return {
    id: `00000000-0000-4000-8000-${name.padEnd(12, "0").slice(0, 12)}`,
    name,
    generation: 1,
    spec: { vcpus: 1, memoryBytes: 512 << 20, boot: { kernel: "vmlinuz" }, console: "serial", onReset: "restart", onPoweroff: "stop", onCrash: "stop" },
    status: { state: "off", since: time, allowed: ["powerOn", "delete", "consoleToken"], ...status },
    createdAt: time,
    updatedAt: time,
  };
}

export function makeTask(id: string, change: Partial<Task> = {}): Task {
  return {
    id,
    kind: "vm.powerOn",
    state: "running",
    progress: 10,
    queuePosition: 0,
    actor: "local:admin",
    requestId: "r",
    createdAt: time,
    ...change,
  };
}

export function makeEvent(seq: number, kind: Event["kind"], data: unknown, vm?: VM): Event {
  return { seq, time, kind, data: data as Event["data"], ...(vm && { vm: { id: vm.id, name: vm.name } }) };
}
