// SPDX-License-Identifier: Apache-2.0
import { Button } from "@patternfly/react-core/dist/dynamic/components/Button";
import { Label } from "@patternfly/react-core/dist/dynamic/components/Label";
import { Tooltip } from "@patternfly/react-core/dist/dynamic/components/Tooltip";
import { useStream } from "../live/Live";

/** StreamStatus says whether what is shown is the present. */
export function StreamStatus() {
  const { stream, retry } = useStream();
  return (
    <span role="status" className="vmctl-row">
      {stream.at === "live" && (
        <Tooltip content="What is shown follows the event stream.">
          <Label status="success" isCompact tabIndex={0}>
            Live
          </Label>
        </Tooltip>
      )}
      {stream.at === "connecting" && <Label isCompact>Connecting</Label>}
      {(stream.at === "waiting" || stream.at === "over") && (
        <>
          <Tooltip content={`${stream.error.message}. What is shown may be old.`}>
            <Label status="warning" isCompact tabIndex={0}>
              Not live
            </Label>
          </Tooltip>
          <Button variant="link" isInline onClick={retry}>
            Retry
          </Button>
        </>
      )}
    </span>
  );
}
