// SPDX-License-Identifier: Apache-2.0
import { Label } from "@patternfly/react-core/dist/dynamic/components/Label";
import type { Task } from "../api/model";
import { named } from "../vm/power";

const kinds: Record<Task["kind"], string> = {
  "vm.powerOn": "Power on",
  "vm.powerOff": "Power off",
  "vm.shutdown": "Shut down",
  "vm.reset": "Reset",
  "vm.pause": "Pause",
  "vm.resume": "Resume",
  "vm.save": "Save",
  "vm.snapshot": "Snapshot",
  "vm.merge": "Merge",
  "vm.attachDisk": "Attach",
  "vm.detachDisk": "Detach",
  "vm.attachNic": "Attach",
  "vm.detachNic": "Detach",
  "vm.delete": "Delete",
};

export const taskKind = (task: Task) => (kinds[task.kind] ?? task.kind) + subject(task);

/** subject is what of the VM a task is for. */
function subject({ disk, device }: Task): string {
  if (disk !== undefined) return ` of disk ${disk}`;
  if (device?.disk) return ` disk ${named(device.disk).disk.path}`;
  return device?.nic ? ` network card ${device.nic.mac ?? ""}` : "";
}

export const taskTitle = (task: Task) => `${taskKind(task)} ${task.vm?.name ?? ""}`.trim();

export function TaskState({ task }: { task: Task }) {
  switch (task.state) {
    case "queued":
      return <Label isCompact>{task.queuePosition > 0 ? `Queued behind ${task.queuePosition}` : "Queued"}</Label>;
    case "running":
      return (
        <Label isCompact color="blue">
          {task.progress > 0 ? `Running, ${task.progress} %` : "Running"}
        </Label>
      );
    case "succeeded":
      return (
        <Label isCompact status="success">
          Done
        </Label>
      );
    case "failed":
      return (
        <Label isCompact status="danger">
          Failed
        </Label>
      );
    default:
      return <Label isCompact>{task.state}</Label>;
  }
}
