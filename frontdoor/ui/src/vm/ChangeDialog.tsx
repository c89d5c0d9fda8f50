// SPDX-License-Identifier: Apache-2.0
// Changes a VM: sends what differs from the VM as it was when the dialog was opened, and
// only if it still is that.
import { Alert } from "@patternfly/react-core/dist/dynamic/components/Alert";
import { Button } from "@patternfly/react-core/dist/dynamic/components/Button";
import { Form, FormGroup } from "@patternfly/react-core/dist/dynamic/components/Form";
import { Modal, ModalBody, ModalFooter, ModalHeader } from "@patternfly/react-core/dist/dynamic/components/Modal";
import { useMutation } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import type { VM } from "../api/model";
import { toApiError } from "../api/problem";
import { useHost, useVMs } from "../live/Live";
import { CommandLines } from "../ui/CommandLines";
import { ProblemAlert } from "../ui/ProblemAlert";
import { getVM, useChange } from "./ask";
import { changeOf, checkChange, draftOf, frozen, locked, stateText, touched, wantedOf } from "./change";
import { changeLines } from "./equivalent";
import { Fields } from "./Fields";
import { useDraft } from "./useDraft";

export default function ChangeDialog({ vm, onClose }: { vm: VM; onClose: () => void }) {
  const host = useHost().data;
  const { items: vms = [] } = useVMs();
  // As it was when the draft was begun; `vm` goes on.
  const [base, setBase] = useState(vm);
  const was = draftOf(base);
  const form = useDraft(was, (draft) => checkChange(draft, base, vm, vms, host));
  const change = useChange(base, onClose);
  const load = useMutation({
    mutationFn: () => getVM(vm.id),
    onSuccess: (newest) => {
      setBase(newest);
      form.begin(draftOf(newest));
      change.reset();
    },
  });
  const refused = change.error && toApiError(change.error);
  const late = refused?.code === "preconditionFailed" || (vm.generation > base.generation && !change.isPending);
  const wanted = form.bad ? undefined : wantedOf(form.draft, base);
  const body = wanted && changeOf(base, wanted);
  const nothing = body !== undefined && Object.keys(body).length === 0;
  const submit = (event: FormEvent) => {
    event.preventDefault();
    form.attempt();
    if (body && !nothing && !late && !change.isPending) change.mutate(body);
  };
  return (
    <Modal isOpen variant="medium" onClose={onClose} aria-labelledby="change-title">
      <ModalHeader title={`Change ${base.name}`} labelId="change-title" />
      <ModalBody tabIndex={0} aria-label="Its configuration">
        {late && (
          <Alert
            isInline
            component="p"
            variant="warning"
            title={`${base.name} was changed meanwhile`}
            className="vmctl-below"
            actionLinks={
              <Button variant="link" isInline isLoading={load.isPending} isDisabled={load.isPending} onClick={() => load.mutate()}>
                Load the newer values
              </Button>
            }
          >
            Nothing is sent any more: it would be for the VM as it was. The newer values take the place of what is typed here.
          </Alert>
        )}
        {load.error && <ProblemAlert error={load.error} title="Could not load the newer values" />}
        {refused && !late && <ProblemAlert error={refused} title={`Could not change ${base.name}`} />}
        {frozen(vm) && (
          <Alert isInline isPlain component="p" variant="info" title={`${vm.name} is ${stateText(vm)}`} className="vmctl-below">
            Limits and links of its devices can change, and what follows a power-off or a crash; the rest can once it is off
            {vm.status.saved ? " and not saved, for the guest goes on from there." : "."}
          </Alert>
        )}
        <Form id="change" onSubmit={submit} noValidate>
          <Fields form={form} locked={(field) => locked(vm, field) && !touched(field, form.draft, was)} />
          <FormGroup label="The same on a command line" role="group" fieldId="lines">
            {wanted && !nothing ? (
              <CommandLines lines={changeLines(base, wanted)} />
            ) : (
              <p className="vmctl-small">{nothing ? "Nothing is changed yet." : "Shown when the form is complete."}</p>
            )}
          </FormGroup>
        </Form>
      </ModalBody>
      <ModalFooter>
        <Button
          type="submit"
          form="change"
          isLoading={change.isPending}
          isDisabled={change.isPending || late || nothing || form.stuck}
        >
          Change
        </Button>
        <Button variant="link" onClick={onClose}>
          Cancel
        </Button>
      </ModalFooter>
    </Modal>
  );
}
