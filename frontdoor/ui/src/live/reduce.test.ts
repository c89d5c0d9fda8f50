// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from "vitest";
import type { VM } from "../api/model";
import { makeEvent, makeTask, makeVM } from "../vm/sample";
import { applyToTasks, applyToVMs, maxTasks, type VMs } from "./reduce";

const listOf = (seq: number, ...vms: VM[]): VMs => ({ seq, byId: new Map(vms.map((vm) => [vm.id, vm])) });
const running = { state: "running", since: "2026-01-02T03:05:00Z", allowed: ["powerOff"], runId: 7 };

describe("applyToVMs", () => {
  const web = makeVM("web");
  const db = makeVM("db");

  it("changes the one VM that an event is about, and no other object", () => {
    const after = applyToVMs(listOf(5, web, db), [makeEvent(6, "vm.state", running, web)]);
    expect(after.byId.get(web.id)?.status).toEqual(running);
    expect(after.byId.get(db.id)).toBe(db);
    expect(after.seq).toBe(6);
  });

  it("counts an event once: what the list holds already is skipped", () => {
    const list = listOf(6, { ...web, status: { ...web.status, state: "stopping" } });
    expect(applyToVMs(list, [makeEvent(5, "vm.state", running, web)])).toBe(list);
    expect(applyToVMs(list, [makeEvent(6, "vm.deleted", {}, web)])).toBe(list);
  });

  it("keeps the map when events are about something else, and moves on", () => {
    const list = listOf(5, web);
    const after = applyToVMs(list, [makeEvent(9, "task.changed", makeTask("t"), web)]);
    expect(after.byId).toBe(list.byId);
    expect(after.seq).toBe(9);
  });

  it("creates, replaces and deletes, with gaps in the numbers", () => {
    const after = applyToVMs(listOf(5, web), [
      makeEvent(7, "vm.created", db, db),
      makeEvent(8, "vm.changed", { ...db, generation: 2 }, db),
      makeEvent(20, "vm.deleted", {}, web),
    ]);
    expect([...after.byId.keys()]).toEqual([db.id]);
    expect(after.byId.get(db.id)?.generation).toBe(2);
  });

  it("takes another name and spec from a change", () => {
    const changed = { ...web, name: "www", generation: 2, spec: { ...web.spec, vcpus: 2 } };
    const after = applyToVMs(listOf(5, web, db), [makeEvent(6, "vm.changed", changed, changed)]);
    expect(after.byId.get(web.id)).toEqual(changed);
    expect(after.byId.get(db.id)).toBe(db);
  });

  it("keeps why a VM stopped when its next state comes without it", () => {
    const stop = { reason: "poweroff", claimed: true, at: "2026-01-02T04:00:00Z", detail: "", runId: 7 };
    const after = applyToVMs(listOf(5, web), [makeEvent(6, "vm.stopped", stop, web)]);
    expect(after.byId.get(web.id)?.status.lastStop).toEqual(stop);
  });

  it("does not invent a VM from the state of an unknown one", () => {
    expect(applyToVMs(listOf(5), [makeEvent(6, "vm.state", running, web)]).byId.size).toBe(0);
  });

  it.each([null, "x", 3, [], {}, { state: 1 }, { id: 1, name: "x" }])("survives the data %j", (data) => {
    const list = listOf(5, web);
    for (const kind of ["vm.created", "vm.changed", "vm.state", "vm.stopped"] as const) {
      expect(applyToVMs(list, [makeEvent(6, kind, data, web)]).byId.get(web.id)).toBe(web);
    }
  });

  it("ignores kinds that it has never heard of", () => {
    const event = makeEvent(6, "vm.teleported" as never, {}, web);
    expect(applyToVMs(listOf(5, web), [event]).byId.get(web.id)).toBe(web);
  });
});

describe("applyToTasks", () => {
  it("puts a new task first and replaces a known one in its place", () => {
    const old = makeTask("old", { createdAt: "2026-01-01T00:00:00Z" });
    const fresh = makeTask("new", { createdAt: "2026-01-03T00:00:00Z" });
    const after = applyToTasks({ seq: 1, items: [old] }, [
      makeEvent(2, "task.changed", fresh),
      makeEvent(3, "task.changed", { ...old, state: "succeeded" }),
    ]);
    expect(after.items.map((t) => [t.id, t.state])).toEqual([["new", "running"], ["old", "succeeded"]]);
  });

  it("is bounded", () => {
    const events = Array.from({ length: maxTasks + 50 }, (_, i) => makeEvent(i + 1, "task.changed", makeTask(`t${i}`)));
    expect(applyToTasks({ seq: 0, items: [] }, events).items).toHaveLength(maxTasks);
  });
});
