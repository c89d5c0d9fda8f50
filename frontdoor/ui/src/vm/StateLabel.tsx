// SPDX-License-Identifier: Apache-2.0
import { Label, type LabelProps } from "@patternfly/react-core/dist/dynamic/components/Label";
import InProgressIcon from "@patternfly/react-icons/dist/esm/icons/in-progress-icon";
import OffIcon from "@patternfly/react-icons/dist/esm/icons/off-icon";
import PauseCircleIcon from "@patternfly/react-icons/dist/esm/icons/pause-circle-icon";
import PlayIcon from "@patternfly/react-icons/dist/esm/icons/play-icon";
import type { State, VM } from "../api/model";
import { stopText } from "./stop";

const looks: Record<State, Pick<LabelProps, "color" | "icon">> = {
  off: { color: "grey", icon: <OffIcon /> },
  starting: { color: "blue", icon: <InProgressIcon /> },
  running: { color: "green", icon: <PlayIcon /> },
  paused: { color: "yellow", icon: <PauseCircleIcon /> },
  stopping: { color: "blue", icon: <InProgressIcon /> },
};

export function StateLabel({ state }: { state: State }) {
  return (
    <Label {...looks[state]} isCompact data-state={state}>
      {state}
    </Label>
  );
}

/** badStop is why the last run ended, where that was nobody's wish. */
export function badStop(vm: VM): string | undefined {
  const stop = vm.status.lastStop;
  if (vm.status.state !== "off" || !stop) return undefined;
  if (["poweroff", "operator", "reset", "destroyed"].includes(stop.reason)) return undefined;
  return stopText(stop.reason);
}
