// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from "vitest";
import type { VM, VMSpec } from "../api/model";
import { changeOf, checkChange, draftOf, locked, wantedOf } from "./change";
import type { Draft } from "./draft";
import { makeVM } from "./sample";

const mac = "52:54:00:12:34:56";
const spec: VMSpec = {
  ...makeVM("web").spec,
  memoryBytes: 3 * 2 ** 29,
  boot: { kernel: "vmlinuz", cmdline: "quiet" },
  disks: [
    { path: "a.img", limit: { opsPerSecond: 5 } },
    { path: "c", format: "overlay", backing: [{ path: "base.img" }] },
  ],
  nics: [{ bridge: "br0", mac, linkDown: true }],
  vsock: { cid: 7 },
};
const vm: VM = { ...makeVM("web"), spec };
const running: VM = { ...vm, status: { ...vm.status, state: "running" } };
const saved: VM = { ...vm, status: { ...vm.status, saved: { at: "2026-01-02T03:04:05Z", bytes: 1 } } };

const change = (typed: Partial<Draft>, of = vm) => changeOf(of, wantedOf({ ...draftOf(of), ...typed }, of));
const findings = (typed: Partial<Draft>, now = vm, others: VM[] = []) =>
  Object.fromEntries(Object.entries(checkChange({ ...draftOf(vm), ...typed }, vm, now, [now, ...others])).filter(([, f]) => f));

describe("changeOf", () => {
  it("sends nothing of what is as it was", () => {
    expect(change({})).toEqual({});
    expect(change({ memory: "1536", memoryUnit: "MiB" })).toEqual({});
    expect(change({ vcpus: " 1" })).toEqual({});
    // The lines cannot say everything: what is not touched does not go through them.
    const odd: VM = { ...vm, spec: { ...spec, disks: [{ path: "a,b", serial: "x,y" }], memoryBytes: 2 ** 29 + 4096 } };
    expect(change({}, odd)).toEqual({});
    expect(change({ name: "www", vcpus: "2" }, odd)).toEqual({ name: "www", spec: { vcpus: 2 } });
  });

  it("sends fields that differ, null for what goes, and lists whole", () => {
    expect(change({ cmdline: "", initrd: "i" })).toEqual({ spec: { boot: { cmdline: null, initrd: "i" } } });
    expect(change({ vsock: "none", nics: "", onCrash: "restart" })).toEqual({ spec: { vsock: null, nics: null, onCrash: "restart" } });
    expect(change({ kernel: "" })).toEqual({ spec: { boot: { kernel: null, cmdline: null } } });
    expect(change({ disks: "a.img\nb.img,ro" })).toEqual({ spec: { disks: [{ path: "a.img" }, { path: "b.img", readOnly: true }] } });
  });

  it("leaves of a device what its line does not say", () => {
    expect(change({ disks: "a.img,ops=6\nc,format=overlay,backing=raw:base.img" })).toEqual({
      spec: { disks: [{ path: "a.img", limit: { opsPerSecond: 6 } }, spec.disks?.[1]] },
    });
    expect(change({ nics: "br0,tx-ops=1" })).toEqual({ spec: { nics: [{ bridge: "br0", mac, sendLimit: { opsPerSecond: 1 } }] } });
  });

  it("keeps the snapshots of disks, which are shown as they were named", () => {
    const disk = { path: "o", format: "overlay" as const, own: true, backing: [{ path: "d" }] };
    const snapped: VM = { ...running, spec: { ...spec, disks: [disk] } };
    expect(draftOf(snapped).disks).toBe("d");
    expect(change({ disks: "d,ops=6" }, snapped)).toEqual({ spec: { disks: [{ ...disk, limit: { opsPerSecond: 6 } }] } });
    expect(change({ disks: "d,serial=s" }, snapped)).toEqual({ spec: { disks: [{ path: "d", serial: "s" }] } });
    expect(checkChange({ ...draftOf(snapped), disks: "d,ops=6" }, snapped, snapped, [snapped]).disks).toBeUndefined();
  });

  it("gives a VM what it had not", () => {
    const bare: VM = { ...vm, spec: { ...makeVM("web").spec, boot: {} } };
    expect(change({ vsock: "auto", disks: "a.img", kernel: "k" }, bare)).toEqual({
      spec: { vsock: {}, disks: [{ path: "a.img" }], boot: { kernel: "k" } },
    });
  });
});

describe("checkChange", () => {
  it("finds nothing in what is there, and its own name is not taken", () => {
    expect(findings({})).toEqual({});
    expect(findings({ name: "db" }, vm, [makeVM("db")])).toHaveProperty("name.problem");
    expect(findings({ vcpus: "0", disks: "../x" })).toMatchObject({ vcpus: { problem: expect.anything() }, disks: { problem: expect.anything() } });
  });

  it("does not complain about what was not touched, until something else makes it wrong", () => {
    const odd: VM = { ...vm, spec: { ...spec, disks: [{ path: "a,b" }], boot: {} } };
    const check = (typed: Partial<Draft>) => checkChange({ ...draftOf(odd), ...typed }, odd, odd, [odd]);
    expect(check({}).disks).toBeUndefined();
    expect(check({ disks: "a,b\nc" }).disks).toHaveProperty("problem");
    expect(check({ disks: "" }).kernel).toHaveProperty("problem");
  });

  it("lets limits, links and policies of a guest that is there change, and nothing else", () => {
    const typed = { disks: "a.img\nc,format=overlay,backing=raw:base.img,bytes=1M", nics: "br0,rx-ops=5", onPoweroff: "restart", onCrash: "restart" } as const;
    expect(findings(typed, running)).toEqual({});
    expect(findings(typed, saved)).toEqual({});
    for (const disks of ["", "a.img,ops=6", "a.img,ro\nc,format=overlay,backing=raw:base.img", "c,format=overlay,backing=raw:base.img\na.img"]) {
      expect(findings({ disks }, running)).toEqual({ disks: { problem: expect.stringContaining("while web is running") } });
    }
    for (const nics of ["", "br1", "br0\nbr0", "br0,mac=52:54:00:00:00:01"]) {
      expect(findings({ nics }, saved)).toEqual({ nics: { problem: expect.stringContaining("while web is saved") } });
    }
    // Typed while it was off, and then it was powered on.
    expect(findings({ memoryUnit: "MiB", memory: "512" }, running)).toHaveProperty("memory.problem");
    expect(findings({ console: "virtio" }, running)).toHaveProperty("console.problem");
  });

  it("locks a name only while a guest runs", () => {
    expect(locked(running, "name")).toBe(true);
    expect(locked(saved, "name")).toBe(false);
    expect(locked(saved, "vcpus")).toBe(true);
    expect(locked(vm, "vcpus")).toBe(false);
    expect(locked(running, "disks")).toBe(false);
  });
});
