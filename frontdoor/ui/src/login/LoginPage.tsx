// SPDX-License-Identifier: Apache-2.0
import { Alert } from "@patternfly/react-core/dist/dynamic/components/Alert";
import { Button } from "@patternfly/react-core/dist/dynamic/components/Button";
import { Card, CardBody, CardTitle } from "@patternfly/react-core/dist/dynamic/components/Card";
import { ExpandableSection } from "@patternfly/react-core/dist/dynamic/components/ExpandableSection";
import { ActionGroup, Form, FormGroup } from "@patternfly/react-core/dist/dynamic/components/Form";
import { TextInput } from "@patternfly/react-core/dist/dynamic/components/TextInput";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useEffect, useState } from "react";
import { toApiError } from "../api/problem";
import { ThemeToggle } from "../app/ThemeToggle";
import { ProblemAlert } from "../ui/ProblemAlert";
import { login, sessionKey } from "./session";

/** LoginPage stands where the page was asked for: after the login that page is shown. */
export function LoginPage({ ended }: { ended: boolean }) {
  const client = useQueryClient();
  const [user, setUser] = useState("");
  const [password, setPassword] = useState("");
  const enter = useMutation({
    mutationFn: () => login(user, password),
    onSuccess: () => client.invalidateQueries({ queryKey: sessionKey }),
    onError: () => setPassword(""),
  });
  useEffect(() => {
    document.title = "Log in · vmctl";
  }, []);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (user && password && !enter.isPending) enter.mutate();
  };
  return (
    <main className="vmctl-login">
      <Card className="vmctl-login-card" isLarge>
        <CardTitle component="h1">Log in to vmctl</CardTitle>
        <CardBody>
          {ended && !enter.error && (
            <Alert isInline component="p" variant="info" title="Your session ended" className="vmctl-below">
              Log in again; you will be where you were.
            </Alert>
          )}
          {enter.error && <LoginProblem thrown={enter.error} />}
          <Form onSubmit={submit}>
            <FormGroup label="User" fieldId="user" isRequired>
              <TextInput
                id="user"
                name="username"
                autoComplete="username"
                autoCapitalize="none"
                autoFocus
                isRequired
                maxLength={256}
                value={user}
                onChange={(_, value) => setUser(value)}
              />
            </FormGroup>
            <FormGroup label="Password" fieldId="password" isRequired>
              <TextInput
                id="password"
                name="password"
                type="password"
                autoComplete="current-password"
                isRequired
                maxLength={1024}
                value={password}
                onChange={(_, value) => setPassword(value)}
              />
            </FormGroup>
            <ActionGroup>
              <Button type="submit" isBlock isLoading={enter.isPending} isDisabled={!user || !password || enter.isPending}>
                Log in
              </Button>
            </ActionGroup>
          </Form>
          <FirstTime />
        </CardBody>
      </Card>
      <ThemeToggle />
    </main>
  );
}

function LoginProblem({ thrown }: { thrown: Error }) {
  const error = toApiError(thrown);
  if (error.status === 401) {
    return (
      <Alert isInline component="p" variant="danger" title="Wrong user or password" className="vmctl-below">
        Which of the two is not said.
      </Alert>
    );
  }
  const wait = error.retryAfter ? ` Try again in ${Math.ceil(error.retryAfter / 1000)} s.` : "";
  return <ProblemAlert error={error} title={`Could not log in.${wait}`} />;
}

function FirstTime() {
  return (
    <ExpandableSection toggleText="The first login, or a lost password" className="vmctl-above">
      <p>
        When <code>vmhttp</code> starts for the first time it makes the account <code>admin</code> and prints its password
        once, to its log: <code>journalctl -u vmhttp</code>.
      </p>
      <p>
        If it is lost, root sets another on the host: <code>vmhttp passwd admin</code>.
      </p>
    </ExpandableSection>
  );
}
