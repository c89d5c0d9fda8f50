// SPDX-License-Identifier: Apache-2.0
// The form of a VM, new or not.
import { FormGroup } from "@patternfly/react-core/dist/dynamic/components/Form";
import { FormSelect, FormSelectOption } from "@patternfly/react-core/dist/dynamic/components/FormSelect";
import { TextInput } from "@patternfly/react-core/dist/dynamic/components/TextInput";
import type { ReactNode } from "react";
import type { Draft } from "./draft";
import { Choice, Field, type FieldProps, Help, LinesField, validated } from "./Field";
import type { DraftForm } from "./useDraft";

const disksHelp = "Images in the host’s folder of disks, one a line: web.img, or tools.img,ro, or debian.qcow2,ro,format=qcow2. Limits follow: web.img,bytes=50M,ops=1000,burst=200ms";
const nicsHelp = "Bridges of the host that VMs may be on, one a line: br0 or br0,mac=52:54:00:12:34:56. Limits of what is received and sent follow, and down unplugs it: br0,rx-bytes=10M,tx-ops=5000,down";

const on = { stop: "Stay off", restart: "Power on again" };

export function Fields(props: {
  form: DraftForm;
  /** Fields that cannot be typed into. */
  locked?: (field: keyof Draft) => boolean;
  /** More fields, behind those of devices. */
  children?: ReactNode;
}) {
  const { form, locked = () => false, children } = props;
  const { draft } = form;
  const of = (field: keyof Draft, label: string): FieldProps => ({
    label, id: field, value: draft[field], finding: form.shown(field), onChange: form.set(field), disabled: locked(field),
  });
  const ofKernel = (field: keyof Draft, label: string) => ({ ...of(field, label), disabled: locked(field) || !draft.kernel });
  return (
    <>
      <Field {...of("name", "Name")} required autoFocus={!locked("name")} />
      <div className="vmctl-pair">
        <Field {...of("vcpus", "vCPUs")} required numeric />
        <Memory {...of("memory", "Memory")} unit={draft.memoryUnit} onUnit={form.set("memoryUnit")} />
      </div>
      <Field
        {...of("kernel", "Kernel")}
        help="A bzImage in the host’s boot folder, such as vmlinuz, or an ELF with a PVH entry; without one it boots from its first disk"
      />
      <Field {...ofKernel("initrd", "Initial RAM disk")} help="Of the kernel, also in the boot folder; may stay empty" />
      <Field {...ofKernel("cmdline", "Kernel command line")} />
      <LinesField {...of("disks", "Disks")} help={disksHelp} />
      <LinesField {...of("nics", "Network cards")} help={nicsHelp} />
      {children}
      <div className="vmctl-pair">
        <Choice {...of("console", "Console")} options={{ serial: "Serial port (ttyS0)", virtio: "Virtio (hvc0)" }} />
        <Choice {...of("vsock", "Sockets to the host")} options={{ none: "None", auto: "Sockets between guest and host" }} />
        <Choice {...of("onReset", "When the guest resets itself")} options={{ restart: "Boot again", stop: "Power off" }} />
        <Choice {...of("onPoweroff", "When it powers off")} options={on} />
        <Choice {...of("onCrash", "When it crashes")} options={{ ...on, restart: "Power on again, ever later" }} />
      </div>
    </>
  );
}

function Memory(props: FieldProps & { unit: Draft["memoryUnit"]; onUnit: (unit: string) => void }) {
  const { label, id, value, finding, onChange, disabled, unit, onUnit } = props;
  return (
    <FormGroup label={label} fieldId={id} isRequired>
      <div className="vmctl-row">
        <TextInput
          id={id}
          inputMode="decimal"
          isRequired
          isDisabled={disabled}
          value={value}
          validated={validated(finding)}
          aria-describedby={`${id}-help`}
          onChange={(_, next) => onChange(next)}
        />
        <FormSelect
          aria-label="Unit of memory"
          value={unit}
          isDisabled={disabled}
          onChange={(_, next) => onUnit(next)}
          className="vmctl-unit"
        >
          <FormSelectOption value="MiB" label="MiB" />
          <FormSelectOption value="GiB" label="GiB" />
        </FormSelect>
      </div>
      <Help id={id} finding={finding} />
    </FormGroup>
  );
}
