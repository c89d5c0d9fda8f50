// SPDX-License-Identifier: Apache-2.0
// Who is not logged in sees the login, whatever the address; who is, the page.
import { Bullseye } from "@patternfly/react-core/dist/dynamic/layouts/Bullseye";
import { Button } from "@patternfly/react-core/dist/dynamic/components/Button";
import { Spinner } from "@patternfly/react-core/dist/dynamic/components/Spinner";
import { lazy, Suspense, useEffect } from "react";
import { Navigate, Route, Routes } from "react-router";
import { Live } from "../live/Live";
import { LoginPage } from "../login/LoginPage";
import { isSession, useSession } from "../login/session";
import { EventsPage } from "../page/EventsPage";
import { NotFoundPage } from "../page/NotFoundPage";
import { TasksPage } from "../page/TasksPage";
import { VMsPage } from "../page/VMsPage";
import { ProblemAlert } from "../ui/ProblemAlert";
import { Refresh } from "../ui/Refresh";
import { Frame } from "./Frame";

// Not part of the first load; fetched once the list is shown.
const loadVMPage = () => import("../page/VMPage");
const VMPage = lazy(loadVMPage);

export function App() {
  const session = useSession();
  const who = session.data;
  if (isSession(who)) {
    return (
      <Live key={who.id}>
        <Frame session={who}>
          <Pages />
        </Frame>
      </Live>
    );
  }
  if (who) return <LoginPage ended={who === "ended"} />;
  const failure = session.error ?? session.failureReason;
  return (
    <Bullseye className="vmctl-start">
      {failure ? (
        <ProblemAlert
          error={failure}
          title="The front door does not answer"
          actions={
            <Button variant="link" isInline onClick={() => void session.refetch({ cancelRefetch: true })}>
              Try now
            </Button>
          }
        />
      ) : (
        <Spinner aria-label="Loading" />
      )}
    </Bullseye>
  );
}

function Pages() {
  useEffect(() => void loadVMPage().catch(() => undefined), []);
  return (
    <Refresh what="this page">
      <Suspense
        fallback={
          <Bullseye>
            <Spinner aria-label="Loading" />
          </Bullseye>
        }
      >
        <AllRoutes />
      </Suspense>
    </Refresh>
  );
}

function AllRoutes() {
  return (
    <Routes>
      <Route index element={<Navigate to="/vms" replace />} />
      <Route path="/vms" element={<VMsPage />} />
      <Route path="/vms/:ident/:tab?" element={<VMPage />} />
      <Route path="/tasks" element={<TasksPage />} />
      <Route path="/events" element={<EventsPage />} />
      <Route path="*" element={<NotFoundPage />} />
    </Routes>
  );
}
