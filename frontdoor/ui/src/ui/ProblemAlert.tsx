// SPDX-License-Identifier: Apache-2.0
import { Alert } from "@patternfly/react-core/dist/dynamic/components/Alert";
import { advice, toApiError } from "../api/problem";

/** ProblemAlert shows what went wrong where it was asked for: text, code, request, and what to do. */
export function ProblemAlert({ error, title, actions }: { error: unknown; title: string; actions?: React.ReactNode }) {
  const problem = toApiError(error);
  const help = advice(problem);
  return (
    <Alert isInline component="p" variant="danger" title={title} className="vmctl-below" actionLinks={actions}>
      <p>{sentence(problem.message)}{help && ` ${help}`}</p>
      {problem.fields.length > 0 && (
        <ul className="vmctl-list">
          {problem.fields.map((field) => (
            <li key={field.location + field.message}>
              <code>{field.location}</code>: {field.message}
            </li>
          ))}
        </ul>
      )}
      <p className="vmctl-small">
        Code <code>{problem.code}</code>
        {problem.requestId && (
          <>
            , request <code>{problem.requestId}</code>
          </>
        )}
      </p>
    </Alert>
  );
}

/** sentence: the API's texts begin in lower case and have no stop. */
function sentence(text: string): string {
  const first = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(first) ? first : `${first}.`;
}
