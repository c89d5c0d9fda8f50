// SPDX-License-Identifier: Apache-2.0
// Makes a VM: checks while typing, and shows the lines that do the same.
import { Button } from "@patternfly/react-core/dist/dynamic/components/Button";
import { Form, FormGroup } from "@patternfly/react-core/dist/dynamic/components/Form";
import { Modal, ModalBody, ModalFooter, ModalHeader } from "@patternfly/react-core/dist/dynamic/components/Modal";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { useNavigate } from "react-router";
import { newKey } from "../api/client";
import type { VM } from "../api/model";
import { useHost } from "../live/Live";
import { vmsKey } from "../live/lists";
import type { VMs } from "../live/reduce";
import { CommandLines } from "../ui/CommandLines";
import { ProblemAlert } from "../ui/ProblemAlert";
import { createVM } from "./ask";
import { checkDraft, emptyDraft, seedOf, specOf } from "./draft";
import { createLines } from "./equivalent";
import { Fields } from "./Fields";
import { SeedField } from "./SeedField";
import { useDraft } from "./useDraft";

const userDataHelp = "What the guest’s cloud-init does at its first boot: users, keys, packages. Only administrators see it again";
const networkConfigHelp = "Its addresses, also for cloud-init; without one it asks DHCP";

export default function CreateDialog({ vms, onClose }: { vms: readonly VM[]; onClose: () => void }) {
  const host = useHost().data;
  const form = useDraft(emptyDraft, (draft) => checkDraft(draft, vms, host));
  const { draft, bad } = form;
  const create = useCreate(onClose);
  const seed = seedOf(draft);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    form.attempt();
    if (!bad && !create.isPending) create.mutate({ name: draft.name, spec: specOf(draft), ...(seed && { seed }) });
  };
  return (
    <Modal isOpen variant="medium" onClose={onClose} aria-labelledby="create-title">
      <ModalHeader title="Create a virtual machine" labelId="create-title" />
      <ModalBody tabIndex={0} aria-label="Its configuration">
        {create.error && <ProblemAlert error={create.error} title={`Could not create ${draft.name}`} />}
        <Form id="create" onSubmit={submit} noValidate>
          <Fields form={form}>
            <SeedField
              label="User data" id="userData" value={draft.userData} finding={form.shown("userData")} onChange={form.set("userData")}
              help={userDataHelp}
            />
            <SeedField
              label="Network configuration" id="networkConfig" value={draft.networkConfig} finding={form.shown("networkConfig")}
              onChange={form.set("networkConfig")} help={networkConfigHelp}
            />
          </Fields>
          <FormGroup label="The same on a command line" role="group" fieldId="lines">
            {bad ? (
              <p className="vmctl-small">Shown when the form is complete.</p>
            ) : (
              <CommandLines lines={createLines(draft.name, specOf(draft), seed)} />
            )}
          </FormGroup>
        </Form>
      </ModalBody>
      <ModalFooter>
        <Button type="submit" form="create" isLoading={create.isPending} isDisabled={create.isPending || form.stuck}>
          Create
        </Button>
        <Button variant="link" onClick={onClose}>
          Cancel
        </Button>
      </ModalFooter>
    </Modal>
  );
}

/** useCreate sends a draft; the same one sent again after a lost answer acts once. */
function useCreate(onClose: () => void) {
  const client = useQueryClient();
  const navigate = useNavigate();
  const [sent, setSent] = useState<{ body: string; key: ReturnType<typeof newKey> }>();
  return useMutation({
    mutationFn: (body: Parameters<typeof createVM>[0]) => {
      const text = JSON.stringify(body);
      const key = sent?.body === text ? sent.key : newKey();
      setSent({ body: text, key });
      return createVM(body, key);
    },
    onError: (thrown) => {
      if (!(thrown as { transient?: boolean }).transient) setSent(undefined);
    },
    onSuccess: (vm) => {
      client.setQueryData<VMs>(vmsKey, (list) =>
        list && !list.byId.has(vm.id) ? { ...list, byId: new Map(list.byId).set(vm.id, vm) } : list,
      );
      onClose();
      void navigate(`/vms/${vm.name}`);
    },
  });
}
