// SPDX-License-Identifier: Apache-2.0
import { Button } from "@patternfly/react-core/dist/dynamic/components/Button";
import { Skeleton } from "@patternfly/react-core/dist/dynamic/components/Skeleton";
import type { ApiError } from "../api/problem";
import { ProblemAlert } from "./ProblemAlert";

/** Loading stands for what is not here yet, and says why when that takes longer. */
export function Loading(props: { what: string; error: ApiError | null; retry: () => void }) {
  const { what, error, retry } = props;
  return (
    <>
      {error && (
        <ProblemAlert
          error={error}
          title={`Could not load ${what}`}
          actions={
            <Button variant="link" isInline onClick={retry}>
              Try now
            </Button>
          }
        />
      )}
      {(!error || error.transient) && (
        <div className="vmctl-skeleton">
          {[0, 1, 2].map((row) => (
            <Skeleton key={row} height="2.5rem" screenreaderText={row === 0 ? `Loading ${what}` : ""} />
          ))}
        </div>
      )}
    </>
  );
}
