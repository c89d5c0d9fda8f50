// SPDX-License-Identifier: Apache-2.0
// What a VM's seed has, and, for who may see it, what is in it.
import { Button } from "@patternfly/react-core/dist/dynamic/components/Button";
import { CodeBlock, CodeBlockCode } from "@patternfly/react-core/dist/dynamic/components/CodeBlock";
import { Modal, ModalBody, ModalFooter, ModalHeader } from "@patternfly/react-core/dist/dynamic/components/Modal";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { api, take } from "../api/client";
import type { Seed as Texts, SeedSize, VM } from "../api/model";
import type { ApiError } from "../api/problem";
import { useWhoAmI } from "../live/Live";
import { Loading } from "../ui/Loading";
import { hasRole } from "./power";
import { formatBytes } from "./validate";

export function Seed({ vm, size }: { vm: VM; size: SeedSize }) {
  const may = hasRole(useWhoAmI().data?.roles, "admin");
  const [shown, setShown] = useState(false);
  return (
    <>
      {seedText(size)}{" "}
      {may && (
        <Button variant="link" isInline onClick={() => setShown(true)} aria-label="Show what is in the seed">
          Show
        </Button>
      )}
      {shown && <SeedDialog vm={vm} onClose={() => setShown(false)} />}
    </>
  );
}

function SeedDialog({ vm, onClose }: { vm: VM; onClose: () => void }) {
  const { data, error, failureReason, refetch } = useQuery<Texts, ApiError>({
    queryKey: ["seed", vm.id],
    queryFn: ({ signal }) => take(api.GET("/v1/vms/{id}/seed", { params: { path: { id: vm.id } }, signal })),
    gcTime: 0, // it may hold secrets: nothing is kept
  });
  return (
    <Modal isOpen variant="medium" onClose={onClose} aria-labelledby="seed-title">
      <ModalHeader title={`Seed of ${vm.name}`} labelId="seed-title" />
      <ModalBody tabIndex={0} aria-label="What is in it">
        {data ? (
          <>
            <Text name="user-data" text={data.userData} />
            <Text name="meta-data" text={data.metaData} />
            <Text name="network-config" text={data.networkConfig} />
          </>
        ) : (
          <Loading what="the seed" error={error ?? failureReason} retry={() => void refetch()} />
        )}
      </ModalBody>
      <ModalFooter>
        <Button onClick={onClose}>Close</Button>
      </ModalFooter>
    </Modal>
  );
}

function Text({ name, text }: { name: string; text: string | undefined }) {
  if (!text) return null;
  return (
    <>
      <h3>{name}</h3>
      <CodeBlock>
        <CodeBlockCode>{text}</CodeBlockCode>
      </CodeBlock>
    </>
  );
}

/** seedText names what a seed has; what is left out the guest is told by the server. */
export function seedText(size: SeedSize): string {
  const parts = [
    ["user-data", size.userDataBytes],
    ["meta-data", size.metaDataBytes],
    ["network-config", size.networkConfigBytes],
  ] as const;
  const there = parts.filter(([, bytes]) => bytes > 0).map(([name, bytes]) => `${name} (${formatBytes(bytes)})`);
  return there.join(", ") || "its uuid and name";
}
