// SPDX-License-Identifier: Apache-2.0
import { Bullseye } from "@patternfly/react-core/dist/dynamic/layouts/Bullseye";
import { EmptyState, EmptyStateBody } from "@patternfly/react-core/dist/dynamic/components/EmptyState";
import { PageSection } from "@patternfly/react-core/dist/dynamic/components/Page";
import { Spinner } from "@patternfly/react-core/dist/dynamic/components/Spinner";
import { Tab, Tabs, TabTitleText } from "@patternfly/react-core/dist/dynamic/components/Tabs";
import { useQuery } from "@tanstack/react-query";
import { lazy, Suspense, useMemo, useState } from "react";
import { Link, Navigate, useNavigate, useParams } from "react-router";
import { api, take } from "../api/client";
import type { Task, VM } from "../api/model";
import type { ApiError } from "../api/problem";
import { EventTable } from "../event/EventTable";
import { useEvents, useTasks, useVM, useVMs } from "../live/Live";
import { TaskTable } from "../task/TaskTable";
import { Head } from "../ui/Head";
import { Loading } from "../ui/Loading";
import { ProblemAlert } from "../ui/ProblemAlert";
import { Refresh } from "../ui/Refresh";
import { ChangeButton } from "../vm/ChangeButton";
import { StateLabel } from "../vm/StateLabel";
import { Summary } from "../vm/Summary";
import { VerbButton } from "../vm/VerbButton";

const Console = lazy(() => import("../console/Console"));

const tabs = ["summary", "console", "events", "tasks"] as const;
type TabName = (typeof tabs)[number];
const titles: Record<TabName, string> = { summary: "Summary", console: "Console", events: "Events", tasks: "Tasks" };

export default function VMPage() {
  const { ident = "", tab = "summary" } = useParams();
  const { items, error, failureReason, refetch } = useVMs();
  const named = useVM(ident);
  // A VM that was here and is gone was deleted, or has another name: its address alone
  // does not say so.
  const [seen, setSeen] = useState<VM>();
  if (named && named !== seen) setSeen(named);
  const here = seen?.name === ident || seen?.id === ident;
  const same = useVM(seen?.id ?? "");
  const vm = named ?? (here ? same : undefined);
  if (vm) {
    if (!tabs.includes(tab as TabName)) return <Navigate to={`/vms/${vm.name}`} replace />;
    return (
      <>
        {!named && <Navigate to={tab === "summary" ? `/vms/${vm.name}` : `/vms/${vm.name}/${tab}`} replace />}
        <Found key={vm.id} vm={vm} tab={tab as TabName} />
      </>
    );
  }
  if (!items) {
    return (
      <>
        <Head title={ident} />
        <PageSection>
          <Loading what="the VM" error={error ?? failureReason} retry={() => void refetch()} />
        </PageSection>
      </>
    );
  }
  return <Gone ident={ident} deleted={here} />;
}

function Gone({ ident, deleted }: { ident: string; deleted: boolean }) {
  return (
    <>
      <Head title={ident} />
      <PageSection isFilled>
        <EmptyState titleText={deleted ? `${ident} was deleted` : "There is no such VM"} headingLevel="h2">
          <EmptyStateBody>
            {!deleted && "It may have another name now, or you may not see it. "}
            <Link to="/vms">All virtual machines</Link>
          </EmptyStateBody>
        </EmptyState>
      </PageSection>
    </>
  );
}

function Found({ vm, tab }: { vm: VM; tab: TabName }) {
  const navigate = useNavigate();
  // A console stays open while another tab is looked at.
  const [opened, setOpened] = useState(tab === "console");
  if (tab === "console" && !opened) setOpened(true);
  return (
    <>
      <Head
        title={vm.name}
        beside={<StateLabel state={vm.status.state} />}
        actions={
          <>
            <VerbButton vm={vm} deed="powerOn" />
            <VerbButton vm={vm} deed={vm.status.state === "paused" ? "resume" : "pause"} />
            <VerbButton vm={vm} deed="save" />
            <VerbButton vm={vm} deed="shutdown" />
            <VerbButton vm={vm} deed="powerOff" />
            <VerbButton vm={vm} deed="reset" />
            <ChangeButton vm={vm} />
            <VerbButton vm={vm} deed="delete" />
          </>
        }
      />
      <PageSection type="tabs">
        <Tabs
          activeKey={tab}
          usePageInsets
          aria-label={`About ${vm.name}`}
          onSelect={(_, key) => void navigate(key === "summary" ? `/vms/${vm.name}` : `/vms/${vm.name}/${key}`)}
        >
          {tabs.map((name) => (
            <Tab key={name} eventKey={name} title={<TabTitleText>{titles[name]}</TabTitleText>} tabContentId={`tab-${name}`} />
          ))}
        </Tabs>
      </PageSection>
      <PageSection isFilled className="vmctl-tab">
        {tabs.map((name) => (
          <div key={name} id={`tab-${name}`} role="tabpanel" aria-label={titles[name]} hidden={tab !== name} className="vmctl-panel">
            {name === "console" && opened && (
              <ChunkGuard>
                <Console vm={vm} visible={tab === "console"} />
              </ChunkGuard>
            )}
            {name === "summary" && tab === name && <Summary vm={vm} />}
            {name === "events" && tab === name && <Events vm={vm} />}
            {name === "tasks" && tab === name && <Tasks vm={vm} />}
          </div>
        ))}
      </PageSection>
    </>
  );
}

/** ChunkGuard: after an upgrade of the server an old page cannot fetch its parts any more. */
function ChunkGuard({ children }: { children: React.ReactNode }) {
  return (
    <Refresh what="the console">
      <Suspense
        fallback={
          <Bullseye>
            <Spinner aria-label="Loading the console" />
          </Bullseye>
        }
      >
        {children}
      </Suspense>
    </Refresh>
  );
}

function Events({ vm }: { vm: VM }) {
  const all = useEvents();
  const own = useMemo(() => all.filter((e) => e.vm?.id === vm.id), [all, vm.id]);
  return <EventTable events={own} ofOne />;
}

function Tasks({ vm }: { vm: VM }) {
  const latest = useTasks().data?.items;
  // What is older than the page's own list.
  const older = useQuery<Task[], ApiError>({
    queryKey: ["tasks of", vm.id],
    queryFn: async ({ signal }) => {
      const query = { vm: vm.id, limit: 100 };
      return (await take(api.GET("/v1/tasks", { params: { query }, signal }))).items;
    },
    staleTime: 0,
  });
  const tasks = useMemo(() => {
    const byId = new Map((older.data ?? []).map((t) => [t.id, t]));
    for (const task of latest ?? []) if (task.vm?.id === vm.id) byId.set(task.id, task);
    return [...byId.values()].sort((a, b) => b.createdAt.localeCompare(a.createdAt));
  }, [older.data, latest, vm.id]);
  return (
    <>
      {older.error && <ProblemAlert error={older.error} title="Could not load older tasks" />}
      <TaskTable tasks={tasks} label={`Tasks of ${vm.name}`} />
    </>
  );
}
