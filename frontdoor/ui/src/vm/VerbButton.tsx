// SPDX-License-Identifier: Apache-2.0
// A button for one verb of one VM.
import CameraIcon from "@patternfly/react-icons/dist/esm/icons/camera-icon";
import CompressIcon from "@patternfly/react-icons/dist/esm/icons/compress-icon";
import MoonIcon from "@patternfly/react-icons/dist/esm/icons/moon-icon";
import PauseIcon from "@patternfly/react-icons/dist/esm/icons/pause-icon";
import PlayIcon from "@patternfly/react-icons/dist/esm/icons/play-icon";
import PowerOffIcon from "@patternfly/react-icons/dist/esm/icons/power-off-icon";
import RedoIcon from "@patternfly/react-icons/dist/esm/icons/redo-icon";
import SaveIcon from "@patternfly/react-icons/dist/esm/icons/save-icon";
import TrashIcon from "@patternfly/react-icons/dist/esm/icons/trash-icon";
import { type ReactElement, useState } from "react";
import type { VM } from "../api/model";
import { useWhoAmI } from "../live/Live";
import { GatedButton } from "../ui/GatedButton";
import { type Deed, useDeed } from "./ask";
import { DeedDialog } from "./DeedDialog";
import { diskGate, gate, harmless, verbs } from "./power";

const icons: Record<Deed, ReactElement> = {
  powerOn: <PlayIcon />,
  powerOff: <PowerOffIcon />,
  shutdown: <MoonIcon />,
  reset: <RedoIcon />,
  pause: <PauseIcon />,
  resume: <PlayIcon />,
  save: <SaveIcon />,
  snapshot: <CameraIcon />,
  merge: <CompressIcon />,
  delete: <TrashIcon />,
};

/** disk is the place of the one that the verb is for. */
export function VerbButton({ vm, deed, compact, disk }: { vm: VM; deed: Deed; compact?: boolean; disk?: number }) {
  const roles = useWhoAmI().data?.roles;
  const [asking, setAsking] = useState(false);
  const request = useDeed(vm, deed, disk);
  const its = disk === undefined ? undefined : vm.spec.disks?.[disk];
  const open = its && (deed === "snapshot" || deed === "merge") ? diskGate(vm, deed, its, roles) : gate(vm, deed, roles);
  const label = verbs[deed].label;
  const press = () => {
    if (request.isPending) return;
    if (harmless(deed)) request.mutate(undefined, { onError: () => setAsking(true) });
    else setAsking(true);
  };
  return (
    <>
      <GatedButton
        gate={open}
        tip={compact ? label : undefined}
        variant={compact ? "plain" : disk !== undefined ? "link" : deed === "powerOn" ? "primary" : deed === "delete" ? "danger" : "secondary"}
        isInline={disk !== undefined}
        size={compact ? undefined : "sm"}
        icon={icons[deed]}
        isLoading={request.isPending}
        aria-label={compact ? `${label} ${vm.name}` : disk === undefined ? undefined : `${label} disk ${disk}`}
        onClick={press}
      >
        {compact ? undefined : label}
      </GatedButton>
      {asking && (
        <DeedDialog
          vm={vm}
          deed={deed}
          disk={disk}
          request={request}
          onClose={() => {
            setAsking(false);
            request.reset();
          }}
        />
      )}
    </>
  );
}
