// SPDX-License-Identifier: Apache-2.0
import { Table, Tbody, Td, Th, Thead, Tr } from "@patternfly/react-table/dist/dynamic/components/Table";
import { memo } from "react";
import { Link } from "react-router";
import type { Event } from "../api/model";
import { When } from "../ui/When";
import { describe } from "./describe";

/** Newest first; at most so many rows. */
const shown = 300;

export function EventTable({ events, ofOne }: { events: readonly Event[]; ofOne?: boolean }) {
  if (events.length === 0) return <p className="vmctl-empty">Nothing happened lately.</p>;
  return (
    <Table aria-label="Events" role="table" variant="compact" gridBreakPoint="grid-md">
      <Thead>
        <Tr>
          <Th width={10}>Number</Th>
          <Th width={15}>When</Th>
          {!ofOne && <Th width={20}>VM</Th>}
          <Th>Event</Th>
        </Tr>
      </Thead>
      <Tbody>
        {events
          .slice(-shown)
          .reverse()
          .map((event) => (
            <Row key={event.seq} event={event} ofOne={ofOne ?? false} />
          ))}
      </Tbody>
    </Table>
  );
}

const Row = memo(function Row({ event, ofOne }: { event: Event; ofOne: boolean }) {
  return (
    <Tr>
      <Td dataLabel="Number">{event.seq}</Td>
      <Td dataLabel="When">
        <When time={event.time} />
      </Td>
      {!ofOne && (
        <Td dataLabel="VM" modifier="breakWord">
          {event.vm && <Link to={`/vms/${event.vm.name}`}>{event.vm.name}</Link>}
        </Td>
      )}
      <Td dataLabel="Event" modifier="breakWord">
        {describe(event)}
      </Td>
    </Tr>
  );
});
