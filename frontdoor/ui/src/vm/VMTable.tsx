// SPDX-License-Identifier: Apache-2.0
// The list of VMs. A row is drawn anew only when its own VM changes.
import { Button } from "@patternfly/react-core/dist/dynamic/components/Button";
import { Table, Tbody, Td, Th, Thead, type ThProps, Tr } from "@patternfly/react-table/dist/dynamic/components/Table";
import TerminalIcon from "@patternfly/react-icons/dist/esm/icons/terminal-icon";
import { memo, useMemo, useState } from "react";
import { Link } from "react-router";
import type { VM } from "../api/model";
import { When } from "../ui/When";
import { badStop, StateLabel } from "./StateLabel";
import { formatBytes } from "./validate";
import { VerbButton } from "./VerbButton";

/** How many rows are added at a time. */
const step = 200;

const orders: ((a: VM, b: VM) => number)[] = [
  (a, b) => a.name.localeCompare(b.name),
  (a, b) => a.status.state.localeCompare(b.status.state),
  (a, b) => b.status.since.localeCompare(a.status.since),
  (a, b) => a.spec.vcpus - b.spec.vcpus,
  (a, b) => a.spec.memoryBytes - b.spec.memoryBytes,
];

export function VMTable({ vms }: { vms: readonly VM[] }) {
  const [order, setOrder] = useState<{ by: number; down: boolean }>({ by: 0, down: false });
  const [limit, setLimit] = useState(step);
  const sorted = useMemo(() => {
    const compare = orders[order.by] ?? orders[0]!;
    const list = [...vms].sort((a, b) => compare(a, b) || a.name.localeCompare(b.name));
    return order.down ? list.reverse() : list;
  }, [vms, order]);
  const sort = (by: number): ThProps["sort"] => ({
    columnIndex: by,
    sortBy: { index: order.by, direction: order.down ? "desc" : "asc" },
    onSort: (_, index, direction) => setOrder({ by: index, down: direction === "desc" }),
  });
  return (
    <>
      <Table aria-label="Virtual machines" role="table" variant="compact" gridBreakPoint="grid-md">
        <Thead>
          <Tr>
            <Th sort={sort(0)}>Name</Th>
            <Th sort={sort(1)} modifier="nowrap">State</Th>
            <Th sort={sort(2)} modifier="nowrap">Since</Th>
            <Th sort={sort(3)} modifier="nowrap">vCPUs</Th>
            <Th sort={sort(4)} modifier="nowrap">Memory</Th>
            <Th screenReaderText="Actions" />
          </Tr>
        </Thead>
        <Tbody>
          {sorted.slice(0, limit).map((vm) => (
            <Row key={vm.id} vm={vm} />
          ))}
        </Tbody>
      </Table>
      {sorted.length > limit && (
        <Button variant="link" onClick={() => setLimit(limit + step)}>
          Show more: {sorted.length - limit} are not shown
        </Button>
      )}
    </>
  );
}

const Row = memo(function Row({ vm }: { vm: VM }) {
  const bad = badStop(vm);
  return (
    <Tr>
      <Td dataLabel="Name" modifier="breakWord">
        <Link to={`/vms/${vm.name}`} className="vmctl-name">{vm.name}</Link>
      </Td>
      <Td dataLabel="State">
        <StateLabel state={vm.status.state} />
        {bad && <div className="vmctl-small vmctl-bad">{bad}</div>}
      </Td>
      <Td dataLabel="Since">
        <When time={vm.status.since} />
      </Td>
      <Td dataLabel="vCPUs">{vm.spec.vcpus}</Td>
      <Td dataLabel="Memory" modifier="nowrap">{formatBytes(vm.spec.memoryBytes)}</Td>
      <Td modifier="fitContent">
        <div className="vmctl-row-actions">
          <VerbButton vm={vm} deed="powerOn" compact />
          <VerbButton vm={vm} deed="powerOff" compact />
          <VerbButton vm={vm} deed="reset" compact />
          <Button
            variant="plain"
            icon={<TerminalIcon />}
            aria-label={`Console of ${vm.name}`}
            component={(p) => <Link {...p} to={`/vms/${vm.name}/console`} title="Console" />}
          />
          <VerbButton vm={vm} deed="delete" compact />
        </div>
      </Td>
    </Tr>
  );
});
