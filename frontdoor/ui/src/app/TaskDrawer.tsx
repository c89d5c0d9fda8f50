// SPDX-License-Identifier: Apache-2.0
// At the foot of every page: what was asked for lately, and how it went.
import { Button } from "@patternfly/react-core/dist/dynamic/components/Button";
import { Label } from "@patternfly/react-core/dist/dynamic/components/Label";
import AngleDownIcon from "@patternfly/react-icons/dist/esm/icons/angle-down-icon";
import AngleUpIcon from "@patternfly/react-icons/dist/esm/icons/angle-up-icon";
import { useState } from "react";
import type { Task } from "../api/model";
import { useTasks } from "../live/Live";
import { TaskState, taskTitle } from "../task/TaskState";
import { TaskTable } from "../task/TaskTable";

const shown = 20;

export function TaskDrawer() {
  const [open, setOpen] = useState(false);
  const items = useTasks().data?.items ?? [];
  const active = items.filter((t) => t.state === "queued" || t.state === "running").length;
  return (
    <section className="vmctl-drawer" aria-label="Recent tasks">
      <div className="vmctl-drawer-head">
        <Button
          variant="link"
          icon={open ? <AngleDownIcon /> : <AngleUpIcon />}
          aria-expanded={open}
          aria-controls="recent-tasks"
          onClick={() => setOpen(!open)}
        >
          Recent tasks
        </Button>
        {active > 0 && (
          <Label isCompact color="blue">
            {active} under way
          </Label>
        )}
        {!open && items[0] && <Latest task={items[0]} />}
      </div>
      <div id="recent-tasks" className="vmctl-drawer-body" hidden={!open}>
        {open && <TaskTable tasks={items.slice(0, shown)} label="Recent tasks" />}
      </div>
    </section>
  );
}

function Latest({ task }: { task: Task }) {
  return (
    <span className="vmctl-drawer-latest" role="status">
      <span className="vmctl-ellipsis">{taskTitle(task)}</span> <TaskState task={task} />
    </span>
  );
}
