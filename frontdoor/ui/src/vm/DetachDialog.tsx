// SPDX-License-Identifier: Apache-2.0
// Asks before a guest is asked to let go of a disk or a network card.
import { Button } from "@patternfly/react-core/dist/dynamic/components/Button";
import { ExpandableSection } from "@patternfly/react-core/dist/dynamic/components/ExpandableSection";
import { Modal, ModalBody, ModalFooter, ModalHeader } from "@patternfly/react-core/dist/dynamic/components/Modal";
import type { VM } from "../api/model";
import { CommandLines } from "../ui/CommandLines";
import { ProblemAlert } from "../ui/ProblemAlert";
import { type Plug, usePlug } from "./ask";
import { plugLines } from "./equivalent";
import { type Device, named } from "./power";

export default function DetachDialog(props: { vm: VM; device: Device; what: string; name: string; onClose: () => void }) {
  const { vm, device, what, name, onClose } = props;
  const request = usePlug(vm, onClose);
  const plug: Plug =
    "disk" in device
      ? { verb: "detachDisk", path: named(device.disk).disk.path }
      : { verb: "detachNic", mac: device.nic.mac ?? "" };
  return (
    <Modal isOpen variant="small" onClose={onClose} aria-labelledby="detach-title" aria-describedby="detach-body">
      <ModalHeader title={`Detach ${what}?`} labelId="detach-title" titleIconVariant="warning" />
      <ModalBody id="detach-body">
        {request.error && <ProblemAlert error={request.error} title={`Could not detach ${what}`} />}
        <p>
          <code>{name}</code> of {vm.name}: {vm.status.state === "running"
            ? "the guest is asked to let go of it. What it has not written yet may be lost if it is in use. One that does not let go keeps it until it is reset or ends."
            : "the VM does not find it any more when it is powered on."}
          {"disk" in device && " The file stays."}
        </p>
        <ExpandableSection toggleText="The same on a command line" className="vmctl-above">
          <CommandLines lines={plugLines(vm.name, plug)} />
        </ExpandableSection>
      </ModalBody>
      <ModalFooter>
        <Button variant="danger" isLoading={request.isPending} isDisabled={request.isPending} onClick={() => request.mutate(plug)}>
          Detach
        </Button>
        <Button variant="link" onClick={onClose}>
          Cancel
        </Button>
      </ModalFooter>
    </Modal>
  );
}
