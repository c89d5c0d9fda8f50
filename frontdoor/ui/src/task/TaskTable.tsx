// SPDX-License-Identifier: Apache-2.0
import { Table, Tbody, Td, Th, Thead, Tr } from "@patternfly/react-table/dist/dynamic/components/Table";
import { memo } from "react";
import { Link } from "react-router";
import type { Task } from "../api/model";
import { When } from "../ui/When";
import { TaskState, taskKind } from "./TaskState";

export function TaskTable({ tasks, label }: { tasks: readonly Task[]; label: string }) {
  if (tasks.length === 0) return <p className="vmctl-empty">Nothing was asked for yet.</p>;
  return (
    <Table aria-label={label} role="table" variant="compact" gridBreakPoint="grid-md">
      <Thead>
        <Tr>
          <Th>Task</Th>
          <Th>VM</Th>
          <Th>State</Th>
          <Th>Asked by</Th>
          <Th>When</Th>
        </Tr>
      </Thead>
      <Tbody>
        {tasks.map((task) => (
          <Row key={task.id} task={task} />
        ))}
      </Tbody>
    </Table>
  );
}

const Row = memo(function Row({ task }: { task: Task }) {
  return (
    <Tr>
      <Td dataLabel="Task">{taskKind(task)}</Td>
      <Td dataLabel="VM" modifier="breakWord">
        {task.vm && <Link to={`/vms/${task.vm.name}`}>{task.vm.name}</Link>}
      </Td>
      <Td dataLabel="State">
        <TaskState task={task} />
        {task.error && (
          <div className="vmctl-small">
            {task.error.detail} <code>{task.error.code}</code>, request <code>{task.requestId}</code>
          </div>
        )}
      </Td>
      <Td dataLabel="Asked by">{task.actor}</Td>
      <Td dataLabel="When">
        <When time={task.createdAt} />
      </Td>
    </Tr>
  );
});
