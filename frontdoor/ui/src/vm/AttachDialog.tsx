// SPDX-License-Identifier: Apache-2.0
// Gives a VM one more disk or network card: what vmctl takes is what is typed.
import { Button } from "@patternfly/react-core/dist/dynamic/components/Button";
import { Form, FormGroup } from "@patternfly/react-core/dist/dynamic/components/Form";
import { Modal, ModalBody, ModalFooter, ModalHeader } from "@patternfly/react-core/dist/dynamic/components/Modal";
import { type FormEvent, useState } from "react";
import type { VM } from "../api/model";
import { CommandLines } from "../ui/CommandLines";
import { ProblemAlert } from "../ui/ProblemAlert";
import { type Plug, usePlug } from "./ask";
import { parseDisks, parseNICs } from "./devices";
import { plugLines } from "./equivalent";
import { Field } from "./Field";
import { verbs } from "./power";
import type { Finding } from "./validate";

const kinds = {
  attachDisk: { label: "Image", help: "In the host’s folder of disks: spare.img, or tools.img,ro; limits follow: spare.img,bytes=50M" },
  attachNic: { label: "Bridge", help: "Of the host, that VMs may be on: br0, or br0,mac=52:54:00:12:34:56; limits follow: br0,rx-bytes=10M" },
};

/** plugOf is what a line asks for, or what is wrong with it. */
function plugOf(verb: "attachDisk" | "attachNic", line: string): Plug | { problem: string } | undefined {
  const parsed = verb === "attachDisk" ? parseDisks(line) : parseNICs(line);
  if ("problem" in parsed) return parsed;
  const [device] = parsed;
  if (!device) return undefined;
  return "path" in device ? { verb: "attachDisk", disk: device } : { verb: "attachNic", nic: device };
}

export default function AttachDialog({ vm, verb, onClose }: { vm: VM; verb: "attachDisk" | "attachNic"; onClose: () => void }) {
  const [line, setLine] = useState("");
  const request = usePlug(vm, onClose);
  const { label, help } = kinds[verb];
  const title = `${verbs[verb].label} to ${vm.name}`;
  const asked = plugOf(verb, line);
  const plug = asked && "verb" in asked ? asked : undefined;
  const finding: Finding = asked && "problem" in asked ? asked : undefined;
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (plug && !request.isPending) request.mutate(plug);
  };
  return (
    <Modal isOpen variant="small" onClose={onClose} aria-labelledby="attach-title">
      <ModalHeader title={title} labelId="attach-title" />
      <ModalBody>
        {request.error && <ProblemAlert error={request.error} title={`Could not attach it to ${vm.name}`} />}
        <Form id="attach" onSubmit={submit} noValidate>
          <Field label={label} id="attach-line" value={line} finding={finding} help={help} required autoFocus onChange={setLine} />
          <FormGroup label="The same on a command line" role="group" fieldId="attach-lines">
            {plug ? <CommandLines lines={plugLines(vm.name, plug)} /> : <p className="vmctl-small">Shown when the form is complete.</p>}
          </FormGroup>
        </Form>
      </ModalBody>
      <ModalFooter>
        <Button type="submit" form="attach" isLoading={request.isPending} isDisabled={request.isPending || !plug}>
          Attach
        </Button>
        <Button variant="link" onClick={onClose}>
          Cancel
        </Button>
      </ModalFooter>
    </Modal>
  );
}
