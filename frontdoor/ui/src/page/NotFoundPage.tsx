// SPDX-License-Identifier: Apache-2.0
import { EmptyState, EmptyStateBody } from "@patternfly/react-core/dist/dynamic/components/EmptyState";
import { PageSection } from "@patternfly/react-core/dist/dynamic/components/Page";
import { Link } from "react-router";
import { Head } from "../ui/Head";

export function NotFoundPage() {
  return (
    <>
      <Head title="No such page" />
      <PageSection isFilled>
        <EmptyState titleText="Nothing is at this address" headingLevel="h2">
          <EmptyStateBody>
            <Link to="/vms">All virtual machines</Link>
          </EmptyStateBody>
        </EmptyState>
      </PageSection>
    </>
  );
}
