// SPDX-License-Identifier: Apache-2.0
// Asks before something is lost, and names what.
import { Button } from "@patternfly/react-core/dist/dynamic/components/Button";
import { ExpandableSection } from "@patternfly/react-core/dist/dynamic/components/ExpandableSection";
import { Modal, ModalBody, ModalFooter, ModalHeader } from "@patternfly/react-core/dist/dynamic/components/Modal";
import type { VM } from "../api/model";
import { CommandLines } from "../ui/CommandLines";
import { ProblemAlert } from "../ui/ProblemAlert";
import type { Deed, useDeed } from "./ask";
import { verbLines } from "./equivalent";
import { harmless, verbs } from "./power";
import { formatBytes } from "./validate";

export function DeedDialog(props: {
  vm: VM;
  deed: Deed;
  disk?: number | undefined;
  request: ReturnType<typeof useDeed>;
  onClose: () => void;
}) {
  const { vm, deed, disk, request, onClose } = props;
  const { label } = verbs[deed];
  return (
    <Modal isOpen variant="small" onClose={onClose} aria-labelledby="deed-title" aria-describedby="deed-body">
      <ModalHeader
        title={disk === undefined ? `${label} ${vm.name}?` : `${label} disk ${disk} of ${vm.name}?`}
        labelId="deed-title"
        {...(!harmless(deed) && { titleIconVariant: "warning" as const })}
      />
      <ModalBody id="deed-body">
        {request.error && <ProblemAlert error={request.error} title={`Could not ${label.toLowerCase()} ${vm.name}`} />}
        <Losses vm={vm} deed={deed} />
        <ExpandableSection toggleText="The same on a command line" className="vmctl-above">
          <CommandLines lines={verbLines(vm.name, deed, disk)} />
        </ExpandableSection>
      </ModalBody>
      <ModalFooter>
        <Button
          variant={harmless(deed) ? "primary" : "danger"}
          isLoading={request.isPending}
          isDisabled={request.isPending}
          onClick={() => request.mutate(undefined, { onSuccess: onClose })}
        >
          {label}
        </Button>
        <Button variant="link" onClick={onClose}>
          Cancel
        </Button>
      </ModalFooter>
    </Modal>
  );
}

function Losses({ vm, deed }: { vm: VM; deed: Deed }) {
  switch (deed) {
    case "powerOn":
      return <p>It boots {vm.spec.boot?.kernel ?? "from its disks"}.</p>;
    case "pause":
      return <p>No instruction of the guest begins any more until it is resumed.</p>;
    case "resume":
      return <p>The guest goes on where it stood.</p>;
    case "save":
      return <p>The guest is written down and stops. Powering on goes on from there.</p>;
    case "snapshot":
      return <p>What the disk has now is kept. The guest goes on and finds the disk as it was.</p>;
    case "merge":
      return (
        <p>
          The newest snapshot of the disk is forgotten: what was written since is written into the file behind it. The
          guest goes on and finds the disk as it was.
        </p>
      );
    case "shutdown":
      return <p>The power button is pressed. Most guests end what runs and power off; one that does not listen goes on.</p>;
    case "powerOff":
      return (
        <p>
          {vm.status.saved
            ? "What it was saved to is removed: it boots anew the next time."
            : "The guest is not asked: this is the same as pulling the plug."} What is in its {formatBytes(vm.spec.memoryBytes)}{" "}
          of memory is lost. The console’s log stays.
        </p>
      );
    case "reset":
      return (
        <p>
          The guest is not asked: it begins to boot at once. What is in its {formatBytes(vm.spec.memoryBytes)} of memory
          is lost. Consoles stay open.
        </p>
      );
    case "delete":
      return (
        <>
          <p>This cannot be undone. What is lost:</p>
          <ul className="vmctl-list">
            <li>
              the VM {vm.name} and its configuration (<code>{vm.id}</code>)
            </li>
            <li>the log of its console</li>
          </ul>
          <p>The kernel and initrd in the boot folder stay, and so do its tasks and events.</p>
        </>
      );
  }
}
