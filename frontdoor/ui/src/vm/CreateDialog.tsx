// SPDX-License-Identifier: Apache-2.0
// Makes a VM: checks while typing, and shows the lines that do the same.
import { Button } from "@patternfly/react-core/dist/dynamic/components/Button";
import { Form, FormGroup, FormHelperText } from "@patternfly/react-core/dist/dynamic/components/Form";
import { FormSelect, FormSelectOption } from "@patternfly/react-core/dist/dynamic/components/FormSelect";
import { HelperText, HelperTextItem } from "@patternfly/react-core/dist/dynamic/components/HelperText";
import { Modal, ModalBody, ModalFooter, ModalHeader } from "@patternfly/react-core/dist/dynamic/components/Modal";
import { TextArea } from "@patternfly/react-core/dist/dynamic/components/TextArea";
import { TextInput } from "@patternfly/react-core/dist/dynamic/components/TextInput";
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
import { checkDraft, type Draft, emptyDraft, seedOf, specOf } from "./draft";
import { createLines } from "./equivalent";
import { SeedField } from "./SeedField";
import type { Finding } from "./validate";

const userDataHelp = "What the guest’s cloud-init does at its first boot: users, keys, packages. Only administrators see it again";
const networkConfigHelp = "Its addresses, also for cloud-init; without one it asks DHCP";

export default function CreateDialog({ vms, onClose }: { vms: readonly VM[]; onClose: () => void }) {
  const host = useHost().data;
  const [draft, setDraft] = useState<Draft>(emptyDraft);
  const [touched, setTouched] = useState<Partial<Record<keyof Draft, boolean>>>({});
  const [tried, setTried] = useState(false);
  const findings = checkDraft(draft, vms, host);
  const bad = Object.values(findings).some((f) => f && "problem" in f);
  const create = useCreate(onClose);
  const set = (field: keyof Draft) => (value: string) => {
    setDraft({ ...draft, [field]: value });
    setTouched({ ...touched, [field]: true });
  };
  const shown = (field: keyof Draft) => {
    const finding = findings[field];
    // What is missing is said when the form is sent, not before it was typed.
    return tried || touched[field] || (finding && "warning" in finding) ? finding : undefined;
  };
  const seed = seedOf(draft);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    setTried(true);
    if (!bad && !create.isPending) create.mutate({ name: draft.name, spec: specOf(draft), ...(seed && { seed }) });
  };
  return (
    <Modal isOpen variant="medium" onClose={onClose} aria-labelledby="create-title">
      <ModalHeader title="Create a virtual machine" labelId="create-title" />
      <ModalBody tabIndex={0} aria-label="Its configuration">
        {create.error && <ProblemAlert error={create.error} title={`Could not create ${draft.name}`} />}
        <Form id="create" onSubmit={submit} noValidate>
          <Field label="Name" id="name" value={draft.name} finding={shown("name")} onChange={set("name")} required autoFocus />
          <div className="vmctl-pair">
            <Field label="vCPUs" id="vcpus" value={draft.vcpus} finding={shown("vcpus")} onChange={set("vcpus")} required numeric />
            <Memory draft={draft} finding={shown("memory")} set={set} />
          </div>
          <Field
            label="Kernel" id="kernel" value={draft.kernel} finding={shown("kernel")} onChange={set("kernel")}
            help="A bzImage in the host’s boot folder, such as vmlinuz; without one it boots from its first disk"
          />
          <Field
            label="Initial RAM disk" id="initrd" value={draft.initrd} finding={shown("initrd")} onChange={set("initrd")} disabled={!draft.kernel}
            help="Of the kernel, also in the boot folder; may stay empty"
          />
          <Field
            label="Kernel command line" id="cmdline" value={draft.cmdline} finding={shown("cmdline")} onChange={set("cmdline")}
            disabled={!draft.kernel}
          />
          <FormGroup label="Disks" fieldId="disks">
            <TextArea
              id="disks" value={draft.disks} rows={2} resizeOrientation="vertical" spellCheck={false} autoCapitalize="none"
              validated={validated(shown("disks"))} aria-describedby="disks-help" onChange={(_, value) => set("disks")(value)}
            />
            <Help id="disks" finding={shown("disks")} help="Images in the host’s folder of disks, one a line: web.img, or tools.img,ro, or debian.qcow2,ro,format=qcow2" />
          </FormGroup>
          <FormGroup label="Network cards" fieldId="nics">
            <TextArea
              id="nics" value={draft.nics} rows={2} resizeOrientation="vertical" spellCheck={false} autoCapitalize="none"
              validated={validated(shown("nics"))} aria-describedby="nics-help" onChange={(_, value) => set("nics")(value)}
            />
            <Help id="nics" finding={shown("nics")} help="Bridges of the host that VMs may be on, one a line: br0 or br0,mac=52:54:00:12:34:56" />
          </FormGroup>
          <SeedField
            label="User data" id="userData" value={draft.userData} finding={shown("userData")} onChange={set("userData")}
            help={(finding) => <Help id="userData" finding={finding} help={userDataHelp} />}
          />
          <SeedField
            label="Network configuration" id="networkConfig" value={draft.networkConfig} finding={shown("networkConfig")}
            onChange={set("networkConfig")}
            help={(finding) => <Help id="networkConfig" finding={finding} help={networkConfigHelp} />}
          />
          <FormGroup label="Console" fieldId="console">
            <FormSelect id="console" value={draft.console} onChange={(_, value) => set("console")(value)}>
              <FormSelectOption value="serial" label="Serial port (ttyS0)" />
              <FormSelectOption value="virtio" label="Virtio (hvc0)" />
            </FormSelect>
          </FormGroup>
          <FormGroup label="When the guest resets itself" fieldId="onReset">
            <FormSelect id="onReset" value={draft.onReset} onChange={(_, value) => set("onReset")(value)}>
              <FormSelectOption value="restart" label="Boot again" />
              <FormSelectOption value="stop" label="Power off" />
            </FormSelect>
          </FormGroup>
          <FormGroup label="When it crashes" fieldId="onCrash">
            <FormSelect id="onCrash" value={draft.onCrash} onChange={(_, value) => set("onCrash")(value)}>
              <FormSelectOption value="stop" label="Stay off" />
              <FormSelectOption value="restart" label="Power on again, ever later" />
            </FormSelect>
          </FormGroup>
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
        <Button type="submit" form="create" isLoading={create.isPending} isDisabled={create.isPending || (tried && bad)}>
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

function Memory(props: { draft: Draft; finding: Finding; set: (field: keyof Draft) => (value: string) => void }) {
  const { draft, finding, set } = props;
  return (
    <FormGroup label="Memory" fieldId="memory" isRequired>
      <div className="vmctl-row">
        <TextInput
          id="memory"
          inputMode="decimal"
          isRequired
          value={draft.memory}
          validated={validated(finding)}
          aria-describedby="memory-help"
          onChange={(_, value) => set("memory")(value)}
        />
        <FormSelect
          aria-label="Unit of memory"
          value={draft.memoryUnit}
          onChange={(_, value) => set("memoryUnit")(value)}
          className="vmctl-unit"
        >
          <FormSelectOption value="MiB" label="MiB" />
          <FormSelectOption value="GiB" label="GiB" />
        </FormSelect>
      </div>
      <Help id="memory" finding={finding} />
    </FormGroup>
  );
}

function Field(props: {
  label: string;
  id: string;
  value: string;
  finding: Finding;
  onChange: (value: string) => void;
  required?: boolean;
  numeric?: boolean;
  disabled?: boolean;
  autoFocus?: boolean;
  help?: string;
}) {
  const { label, id, value, finding, onChange, required = false, numeric, disabled = false, autoFocus, help } = props;
  return (
    <FormGroup label={label} fieldId={id} isRequired={required}>
      <TextInput
        id={id}
        value={value}
        isRequired={required}
        isDisabled={disabled}
        autoFocus={autoFocus}
        autoComplete="off"
        autoCapitalize="none"
        spellCheck={false}
        inputMode={numeric ? "numeric" : "text"}
        validated={validated(finding)}
        aria-describedby={`${id}-help`}
        onChange={(_, next) => onChange(next)}
      />
      <Help id={id} finding={finding} help={help} />
    </FormGroup>
  );
}

function Help({ id, finding, help }: { id: string; finding: Finding; help?: string | undefined }) {
  const text = finding ? ("problem" in finding ? finding.problem : finding.warning) : help;
  return (
    <FormHelperText>
      <HelperText id={`${id}-help`} isLiveRegion>
        {text && <HelperTextItem variant={validated(finding)}>{text}</HelperTextItem>}
      </HelperText>
    </FormHelperText>
  );
}

const validated = (finding: Finding) => (!finding ? "default" : "problem" in finding ? "error" : "warning");
