// SPDX-License-Identifier: Apache-2.0
import { Button } from "@patternfly/react-core/dist/dynamic/components/Button";
import CheckIcon from "@patternfly/react-icons/dist/esm/icons/check-icon";
import CopyIcon from "@patternfly/react-icons/dist/esm/icons/copy-icon";
import { useEffect, useState } from "react";
import type { Lines } from "../vm/equivalent";

/** CommandLines shows the lines that do the same, to be copied. */
export function CommandLines({ lines }: { lines: Lines }) {
  return (
    <div className="vmctl-lines">
      <Line label="vmctl" text={lines.vmctl} />
      <Line label="curl" text={lines.curl} />
    </div>
  );
}

function Line({ label, text }: { label: string; text: string }) {
  const [copied, setCopied] = useState(false);
  useEffect(() => {
    if (!copied) return;
    const timer = setTimeout(() => setCopied(false), 2000);
    return () => clearTimeout(timer);
  }, [copied]);
  const copy = () =>
    navigator.clipboard.writeText(text).then(
      () => setCopied(true),
      () => setCopied(false),
    );
  return (
    <div className="vmctl-line">
      <code tabIndex={0} role="group" aria-label={`As a ${label} line`}>{text}</code>
      <Button
        variant="plain"
        icon={copied ? <CheckIcon /> : <CopyIcon />}
        aria-label={copied ? "Copied" : `Copy the ${label} line`}
        onClick={() => void copy()}
      />
    </div>
  );
}
