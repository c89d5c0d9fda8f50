// SPDX-License-Identifier: Apache-2.0
import { Card, CardBody, CardTitle } from "@patternfly/react-core/dist/dynamic/components/Card";
import {
  DescriptionList,
  DescriptionListDescription,
  DescriptionListGroup,
  DescriptionListTerm,
} from "@patternfly/react-core/dist/dynamic/components/DescriptionList";
import type { BootSpec, VM } from "../api/model";
import { CommandLines } from "../ui/CommandLines";
import { Exact, When } from "../ui/When";
import { Disks, NICs } from "./DeviceList";
import { createLines } from "./equivalent";
import { named } from "./power";
import { Seed } from "./Seed";
import { stopText } from "./stop";
import { formatBytes } from "./validate";

export function Summary({ vm }: { vm: VM }) {
  const { spec, status } = vm;
  // Its addresses are its own, and so are its snapshots.
  const another = {
    ...spec,
    ...(spec.nics && { nics: spec.nics.map((nic) => ({ ...nic, mac: undefined })) }),
    ...(spec.vsock && { vsock: {} }),
    ...(spec.disks && { disks: spec.disks.map((disk) => named(disk).disk) }),
  };
  return (
    <div className="vmctl-cards">
      <Card>
        <CardTitle component="h2">Now</CardTitle>
        <CardBody>
          <List>
            <Item term="State">
              {status.state}, since <When time={status.since} />
            </Item>
            {status.runId !== undefined && <Item term="Run">{status.runId}</Item>}
            {status.restartAt && (
              <Item term="Restart">
                <When time={status.restartAt} /> by its policy; powering it off keeps it off
              </Item>
            )}
            {status.saved && (
              <Item term="Saved">
                <When time={status.saved.at} />, {formatBytes(status.saved.bytes)} on the host; powering it on goes on from
                there
              </Item>
            )}
            <Item term="Last stop">
              <LastStop vm={vm} />
            </Item>
          </List>
        </CardBody>
      </Card>
      <Card>
        <CardTitle component="h2">Configuration</CardTitle>
        <CardBody>
          <List>
            <Item term="vCPUs">{spec.vcpus}</Item>
            <Item term="Memory">{formatBytes(spec.memoryBytes)}</Item>
            <Boot boot={spec.boot ?? {}} />
            <Item term="Disks"><Disks vm={vm} disks={spec.disks ?? []} /></Item>
            <Item term="Network cards"><NICs vm={vm} nics={spec.nics ?? []} /></Item>
            <Item term="Seed">{vm.seed ? <Seed vm={vm} size={vm.seed} /> : "none"}</Item>
            <Item term="Sockets to the host">{spec.vsock ? `CID ${spec.vsock.cid ?? ""}` : "none"}</Item>
            <Item term="Console">{spec.console === "virtio" ? "virtio (hvc0)" : "serial port (ttyS0)"}</Item>
            <Item term="When the guest resets">{spec.onReset === "stop" ? "power off" : "boot again"}</Item>
            <Item term="When it powers off">{spec.onPoweroff === "restart" ? "power on again" : "stay off"}</Item>
            <Item term="When it crashes">{spec.onCrash === "restart" ? "power on again" : "stay off"}</Item>
          </List>
        </CardBody>
      </Card>
      <Card>
        <CardTitle component="h2">Identity</CardTitle>
        <CardBody>
          <List>
            <Item term="Id">
              <code>{vm.id}</code>
            </Item>
            <Item term="Generation">{vm.generation}</Item>
            <Item term="Created">
              <Exact time={vm.createdAt} />
            </Item>
          </List>
        </CardBody>
      </Card>
      <Card>
        <CardTitle component="h2">Another like it</CardTitle>
        <CardBody>
          <CommandLines lines={createLines(vm.name, another)} />
          {vm.seed && <p className="vmctl-small">Without its seed, which may hold secrets.</p>}
        </CardBody>
      </Card>
    </div>
  );
}

function Boot({ boot }: { boot: BootSpec }) {
  if (!boot.kernel) return <Item term="Boots from">its disks, by firmware</Item>;
  return (
    <>
      <Item term="Kernel">
        <code>{boot.kernel}</code>
      </Item>
      <Item term="Initial RAM disk">{boot.initrd ? <code>{boot.initrd}</code> : "none"}</Item>
      <Item term="Command line">{boot.cmdline ? <code>{boot.cmdline}</code> : "empty"}</Item>
    </>
  );
}

function LastStop({ vm }: { vm: VM }) {
  const stop = vm.status.lastStop;
  if (!stop) return <>{vm.status.state === "off" ? "never ran" : "none so far"}</>;
  return (
    <>
      <When time={stop.at} />: {stopText(stop.reason)}
      {stop.detail && ` (${stop.detail})`}
      <div className="vmctl-small">{stop.claimed ? "As its monitor says." : "As the kernel saw it."}</div>
    </>
  );
}

const List = ({ children }: { children: React.ReactNode }) => (
  <DescriptionList isHorizontal isCompact>
    {children}
  </DescriptionList>
);

function Item({ term, children }: { term: string; children: React.ReactNode }) {
  return (
    <DescriptionListGroup>
      <DescriptionListTerm>{term}</DescriptionListTerm>
      <DescriptionListDescription className="vmctl-break">{children}</DescriptionListDescription>
    </DescriptionListGroup>
  );
}
