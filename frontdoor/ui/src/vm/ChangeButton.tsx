// SPDX-License-Identifier: Apache-2.0
import EditIcon from "@patternfly/react-icons/dist/esm/icons/edit-icon";
import { lazy, Suspense, useState } from "react";
import type { VM } from "../api/model";
import { useWhoAmI } from "../live/Live";
import { GatedButton } from "../ui/GatedButton";
import { changeGate } from "./power";

const ChangeDialog = lazy(() => import("./ChangeDialog"));

/** ChangeButton stands among those of the verbs, and opens the form. */
export function ChangeButton({ vm }: { vm: VM }) {
  const roles = useWhoAmI().data?.roles;
  const [open, setOpen] = useState(false);
  return (
    <>
      <GatedButton gate={changeGate(vm, roles)} variant="secondary" size="sm" icon={<EditIcon />} onClick={() => setOpen(true)}>
        Change
      </GatedButton>
      {open && (
        <Suspense>
          <ChangeDialog vm={vm} onClose={() => setOpen(false)} />
        </Suspense>
      )}
    </>
  );
}
