// SPDX-License-Identifier: Apache-2.0
// The disks and network cards of a VM, and the cables of the cards.
import PluggedIcon from "@patternfly/react-icons/dist/esm/icons/plugged-icon";
import UnpluggedIcon from "@patternfly/react-icons/dist/esm/icons/unplugged-icon";
import type { DiskSpec, NICSpec, VM } from "../api/model";
import { useWhoAmI } from "../live/Live";
import { GatedButton } from "../ui/GatedButton";
import { ProblemAlert } from "../ui/ProblemAlert";
import { useChange } from "./ask";
import { limitText } from "./devices";
import { AttachButton, DetachButton } from "./PlugButtons";
import { changeGate, named } from "./power";
import { VerbButton } from "./VerbButton";

export const Disks = ({ vm, disks }: { vm: VM; disks: readonly DiskSpec[] }) => (
  <ul className="vmctl-plain">
    {disks.map(named).map(({ disk, snapshots }, i) => (
      <li key={i}>
        <code>{disk.path}</code>
        {disk.readOnly && ", read-only"}
        {disk.serial && `, serial number ${disk.serial}`}
        {disk.format && `, ${disk.format}`}
        {disk.backing && ` on ${disk.backing.map(({ path }) => path).join(", ")}`}
        {disk.limit && `, ${limitText(disk.limit, "requests")}`}
        {snapshots > 0 && `, ${snapshots === 1 ? "a snapshot" : `${snapshots} snapshots`}`}{" "}
        {!disk.readOnly && <VerbButton vm={vm} deed="snapshot" disk={i} />} {snapshots > 0 && <VerbButton vm={vm} deed="merge" disk={i} />}{" "}
        <DetachButton vm={vm} device={{ disk: disks[i] ?? disk }} what={`disk ${i}`} name={disk.path} />
      </li>
    ))}
    <li>
      {disks.length === 0 && "none "}
      <AttachButton vm={vm} verb="attachDisk" />
    </li>
  </ul>
);

export const NICs = ({ vm, nics }: { vm: VM; nics: readonly NICSpec[] }) => (
  <ul className="vmctl-plain">
    {nics.map((nic, i) => (
      <li key={i}>
        <code>{nic.bridge}</code>
        {nic.mac && (
          <>
            , address <code>{nic.mac}</code>
          </>
        )}
        {nic.receiveLimit && `, receives ${limitText(nic.receiveLimit, "packets")}`}
        {nic.sendLimit && `, sends ${limitText(nic.sendLimit, "packets")}`}
        {nic.linkDown && ", link down"} <Cable vm={vm} nics={nics} at={i} />{" "}
        <DetachButton vm={vm} device={{ nic }} what={`network card ${i}`} name={nic.bridge} />
      </li>
    ))}
    <li>
      {nics.length === 0 && "none "}
      <AttachButton vm={vm} verb="attachNic" />
    </li>
  </ul>
);

function Cable({ vm, nics, at }: { vm: VM; nics: readonly NICSpec[]; at: number }) {
  const roles = useWhoAmI().data?.roles;
  const change = useChange(vm);
  const down = nics[at]?.linkDown === true;
  const label = down ? "Plug in" : "Unplug";
  const card = `network card ${at} on ${nics[at]?.bridge}`;
  const turn = () => {
    if (!change.isPending) change.mutate({ spec: { nics: nics.map((nic, i) => (i === at ? { ...nic, linkDown: !down } : nic)) } });
  };
  return (
    <>
      <GatedButton
        gate={changeGate(vm, roles)}
        variant="link"
        isInline
        icon={down ? <PluggedIcon /> : <UnpluggedIcon />}
        isLoading={change.isPending}
        aria-label={`${label} ${card}`}
        onClick={turn}
      >
        {label}
      </GatedButton>
      {change.error && <ProblemAlert error={change.error} title={`Could not ${label.toLowerCase()} ${card}`} />}
    </>
  );
}
