// SPDX-License-Identifier: Apache-2.0
// Buttons by which disks and network cards come and go, also while a guest runs.
import MinusCircleIcon from "@patternfly/react-icons/dist/esm/icons/minus-circle-icon";
import PlusCircleIcon from "@patternfly/react-icons/dist/esm/icons/plus-circle-icon";
import { lazy, Suspense, useState } from "react";
import type { VM } from "../api/model";
import { useWhoAmI } from "../live/Live";
import { GatedButton } from "../ui/GatedButton";
import { type Device, detachGate, gate, verbs } from "./power";

const AttachDialog = lazy(() => import("./AttachDialog"));
const DetachDialog = lazy(() => import("./DetachDialog"));

export function AttachButton({ vm, verb }: { vm: VM; verb: "attachDisk" | "attachNic" }) {
  const roles = useWhoAmI().data?.roles;
  const [open, setOpen] = useState(false);
  return (
    <>
      <GatedButton gate={gate(vm, verb, roles)} variant="link" isInline icon={<PlusCircleIcon />} onClick={() => setOpen(true)}>
        {verbs[verb].label}
      </GatedButton>
      {open && (
        <Suspense>
          <AttachDialog vm={vm} verb={verb} onClose={() => setOpen(false)} />
        </Suspense>
      )}
    </>
  );
}

/** The device is `what`, such as disk 1, and has a `name`. */
export function DetachButton({ vm, device, what, name }: { vm: VM; device: Device; what: string; name: string }) {
  const roles = useWhoAmI().data?.roles;
  const [open, setOpen] = useState(false);
  return (
    <>
      <GatedButton
        gate={detachGate(vm, device, roles)}
        variant="link"
        isInline
        icon={<MinusCircleIcon />}
        aria-label={`Detach ${what}, ${name}`}
        onClick={() => setOpen(true)}
      >
        Detach
      </GatedButton>
      {open && (
        <Suspense>
          <DetachDialog vm={vm} device={device} what={what} name={name} onClose={() => setOpen(false)} />
        </Suspense>
      )}
    </>
  );
}
