// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from "vitest";
import type { State, Verb } from "../api/model";
import { changeGate, detachGate, diskGate, gate, hasRole, named, verbs } from "./power";
import { makeVM } from "./sample";

const inState = (state: State, allowed: Verb[]) => makeVM("web", { state, allowed });

describe("gate", () => {
  it("follows the server where it allows", () => {
    for (const verb of Object.keys(verbs) as Verb[]) {
      for (const state of ["off", "starting", "running", "paused", "stopping"] as const) {
        expect(gate(inState(state, [verb]), verb, ["admin"])).toEqual({ open: true });
      }
    }
  });

  it("names the states and the present one", () => {
    expect(gate(inState("running", ["powerOff", "reset"]), "powerOn", ["admin"])).toEqual({
      open: false,
      reason: "Only a VM that is off or stopping can be powered on; web is running.",
    });
    expect(gate(inState("off", ["powerOn"]), "powerOff", ["admin"])).toMatchObject({
      reason: "Only a VM that is starting, running or paused can be powered off; web is off.",
    });
  });

  it("does not blame the state when the server refuses for another reason", () => {
    const closed = gate(inState("off", []), "powerOn", ["admin"]);
    expect(closed).toMatchObject({ open: false });
    expect(closed.open ? "" : closed.reason).toContain("another task");
  });

  it("names the role that is missing, whatever the server says of the state", () => {
    const vm = inState("off", ["powerOn", "delete"]);
    expect(gate(vm, "powerOn", ["viewer"])).toMatchObject({ open: false });
    expect(gate(vm, "powerOn", ["operator"])).toEqual({ open: true });
    const closed = gate(vm, "delete", ["operator"]);
    expect(closed.open ? "" : closed.reason).toContain("role admin");
  });
});

describe("changeGate", () => {
  it("is for admins, and for states in which something can change", () => {
    for (const state of ["off", "running", "paused"] as const) expect(changeGate(inState(state, []), ["admin"])).toEqual({ open: true });
    expect(changeGate(inState("starting", []), ["admin"])).toEqual({
      open: false,
      reason: "Only a VM that is off, running or paused can be changed; web is starting.",
    });
    expect(changeGate(inState("off", []), ["operator"])).toMatchObject({ reason: expect.stringContaining("role admin") });
  });
});

describe("hasRole", () => {
  it("lets a higher role do what a lower one may", () => {
    expect(hasRole(["admin"], "viewer")).toBe(true);
    expect(hasRole(["viewer"], "operator")).toBe(false);
    expect(hasRole([], "viewer")).toBe(false);
  });
  it("closes nothing while the roles are not known", () => {
    expect(hasRole(undefined, "admin")).toBe(true);
  });
});

describe("disks", () => {
  const base = { path: "img", format: "qcow2" } as const;
  const once = { path: "1/a", format: "overlay", own: true, serial: "s", backing: [{ path: "d", format: "overlay" }, base] } as const;
  const twice = { ...once, path: "1/b", backing: [{ path: "1/a", format: "overlay", own: true }, ...once.backing] } as const;
  const disks = [once, twice].map((d) => ({ ...d, backing: [...d.backing] }));

  it("are shown as they were named", () => {
    const plain = { path: "d", serial: "s", format: "overlay" as const, backing: [base] };
    expect(disks.map(named)).toEqual([
      { disk: plain, snapshots: 1 },
      { disk: plain, snapshots: 2 },
    ]);
    expect(named(plain)).toEqual({ disk: plain, snapshots: 0 });
  });

  it("stay while they have snapshots", () => {
    const vm = inState("running", ["detachDisk", "detachNic"]);
    expect(disks.map((disk) => detachGate(vm, { disk }, ["admin"]).open)).toEqual([false, false]);
    expect(detachGate(vm, { disk: { path: "d" } }, ["admin"])).toEqual({ open: true });
    expect(detachGate(vm, { nic: { bridge: "br0" } }, ["operator"])).toMatchObject({ open: false });
    expect(detachGate(inState("paused", []), { nic: { bridge: "br0" } }, ["admin"])).toMatchObject({
      reason: "Only a VM that is off or running can be rid of a network card; web is paused.",
    });
  });

  it("are merged into files of snapshots alone", () => {
    const vm = inState("running", ["snapshot", "merge"]);
    expect(disks.map((d) => diskGate(vm, "merge", d, ["operator"]).open)).toEqual([false, true]);
    expect(diskGate(vm, "snapshot", { path: "d", readOnly: true }, ["operator"])).toMatchObject({ open: false });
    expect(diskGate(vm, "snapshot", { path: "d" }, ["operator"])).toEqual({ open: true });
    expect(diskGate(inState("off", []), "merge", { path: "d", backing: [{ path: "e", own: true }] }, ["operator"])).toMatchObject({
      reason: "Only a VM that is running or paused can be merged; web is off.",
    });
  });
});
