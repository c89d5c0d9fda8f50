// SPDX-License-Identifier: Apache-2.0
import { PageSection } from "@patternfly/react-core/dist/dynamic/components/Page";
import { EventTable } from "../event/EventTable";
import { useEvents } from "../live/Live";
import { Head } from "../ui/Head";

export function EventsPage() {
  const events = useEvents();
  return (
    <>
      <Head title="Events" />
      <PageSection isFilled>
        <EventTable events={events} />
      </PageSection>
    </>
  );
}
