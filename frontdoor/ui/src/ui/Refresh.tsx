// SPDX-License-Identifier: Apache-2.0
import { Alert } from "@patternfly/react-core/dist/dynamic/components/Alert";
import { Button } from "@patternfly/react-core/dist/dynamic/components/Button";
import { Component, type ReactNode } from "react";

/** Refresh catches what could not be loaded or drawn, and offers to load the page again. */
export class Refresh extends Component<{ what: string; children: ReactNode }, { failed: boolean }> {
  override state = { failed: false };

  static getDerivedStateFromError() {
    return { failed: true };
  }

  override render() {
    if (!this.state.failed) return this.props.children;
    return (
      <Alert
        isInline
        component="p"
        variant="danger"
        title={`Could not show ${this.props.what}`}
        actionLinks={
          <Button variant="link" isInline onClick={() => location.reload()}>
            Load the page again
          </Button>
        }
      >
        The server may have been upgraded since this page was loaded, or cannot be reached.
      </Alert>
    );
  }
}
