// SPDX-License-Identifier: Apache-2.0
import { PageSection } from "@patternfly/react-core/dist/dynamic/components/Page";
import { useTasks } from "../live/Live";
import { TaskTable } from "../task/TaskTable";
import { Head } from "../ui/Head";
import { Loading } from "../ui/Loading";

export function TasksPage() {
  const { data, error, failureReason, refetch } = useTasks();
  return (
    <>
      <Head title="Tasks" />
      <PageSection isFilled>
        {data ? (
          <TaskTable tasks={data.items} label="Tasks" />
        ) : (
          <Loading what="the tasks" error={error ?? failureReason} retry={() => void refetch()} />
        )}
      </PageSection>
    </>
  );
}
