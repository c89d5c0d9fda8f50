// SPDX-License-Identifier: Apache-2.0
import { PageSection } from "@patternfly/react-core/dist/dynamic/components/Page";
import { Title } from "@patternfly/react-core/dist/dynamic/components/Title";
import { useEffect } from "react";

/** Head is the top of a page, and the title of its tab. */
export function Head(props: { title: string; beside?: React.ReactNode; actions?: React.ReactNode }) {
  const { title, beside, actions } = props;
  useEffect(() => {
    document.title = `${title} · vmctl`;
  }, [title]);
  return (
    <PageSection className="vmctl-page-head">
      <div className="vmctl-title">
        <Title headingLevel="h1" className="vmctl-ellipsis">
          {title}
        </Title>
        {beside}
      </div>
      <div className="vmctl-actions">{actions}</div>
    </PageSection>
  );
}
