// SPDX-License-Identifier: Apache-2.0
import { Label } from "@patternfly/react-core/dist/dynamic/components/Label";
import type { Task } from "../api/model";

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
  "vm.delete": "Delete",
};

export const taskKind = (task: Task) =>
  (kinds[task.kind] ?? task.kind) + (task.disk === undefined ? "" : ` of disk ${task.disk}`);

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
