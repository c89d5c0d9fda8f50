// SPDX-License-Identifier: Apache-2.0
import { EmptyState, EmptyStateBody, EmptyStateFooter } from "@patternfly/react-core/dist/dynamic/components/EmptyState";
import { PageSection } from "@patternfly/react-core/dist/dynamic/components/Page";
import { SearchInput } from "@patternfly/react-core/dist/dynamic/components/SearchInput";
import ServerIcon from "@patternfly/react-icons/dist/esm/icons/server-icon";
import { lazy, Suspense, useState } from "react";
import type { VM } from "../api/model";
import { useVMs, useWhoAmI } from "../live/Live";
import { GatedButton } from "../ui/GatedButton";
import { Head } from "../ui/Head";
import { Loading } from "../ui/Loading";
import { roleGate } from "../vm/power";
import { VMTable } from "../vm/VMTable";

const CreateDialog = lazy(() => import("../vm/CreateDialog"));

export function VMsPage() {
  const { items, error, failureReason, refetch } = useVMs();
  const [creating, setCreating] = useState(false);
  const create = <CreateButton onClick={() => setCreating(true)} />;
  return (
    <>
      <Head title="Virtual machines" actions={items && items.length > 0 && create} />
      <PageSection isFilled>
        {!items && <Loading what="the VMs" error={error ?? failureReason} retry={() => void refetch()} />}
        {items?.length === 0 && <NoVMs create={create} />}
        {items && items.length > 0 && <Searched vms={items} />}
      </PageSection>
      {creating && (
        <Suspense>
          <CreateDialog vms={items ?? []} onClose={() => setCreating(false)} />
        </Suspense>
      )}
    </>
  );
}

function CreateButton({ onClick }: { onClick: () => void }) {
  return (
    <GatedButton gate={roleGate(useWhoAmI().data?.roles, "admin")} onClick={onClick}>
      Create VM
    </GatedButton>
  );
}

function NoVMs({ create }: { create: React.ReactNode }) {
  return (
    <EmptyState titleText="No virtual machines yet" headingLevel="h2" icon={ServerIcon}>
      <EmptyStateBody>
        A VM boots from a disk, or a Linux kernel from the host’s boot folder. You see those that you may see.
      </EmptyStateBody>
      <EmptyStateFooter>{create}</EmptyStateFooter>
    </EmptyState>
  );
}

function Searched({ vms }: { vms: readonly VM[] }) {
  const [text, setText] = useState("");
  const wanted = text.trim().toLowerCase();
  const found = wanted ? vms.filter((vm) => vm.name.includes(wanted) || vm.status.state === wanted) : vms;
  const running = vms.filter((vm) => vm.status.state === "running").length;
  return (
    <>
      <div className="vmctl-search">
        <SearchInput
          aria-label="Search by name or state"
          placeholder="Name or state"
          value={text}
          onChange={(_, value) => setText(value)}
          onClear={() => setText("")}
        />
        <span className="vmctl-small" role="status">
          {wanted ? `${found.length} of ${vms.length}` : `${vms.length} in all, ${running} running`}
        </span>
      </div>
      {found.length > 0 ? (
        <VMTable vms={found} />
      ) : (
        <p className="vmctl-empty">No VM has “{text}” in its name, or is in that state.</p>
      )}
    </>
  );
}
