// SPDX-License-Identifier: Apache-2.0
import { describe as suite, expect, it } from "vitest";
import { makeEvent, makeTask } from "../vm/sample";
import { describe } from "./describe";

suite("describe", () => {
  it("says why a VM stopped", () => {
    const data = { reason: "monitorGone", claimed: false, detail: "killed by signal 9" };
    expect(describe(makeEvent(1, "vm.stopped", data))).toBe("Stopped: its monitor is gone (killed by signal 9)");
  });
  it("has the code of a task that failed", () => {
    const task = makeTask("t", { state: "failed", error: { code: "bootFileMissing", detail: "no vmlinuz" } });
    expect(describe(makeEvent(1, "task.changed", task))).toBe("Task vm.powerOn failed: no vmlinuz [bootFileMissing]");
  });
  it.each([null, 7, "x", [], {}, { state: {}, reason: [], user: null }])("survives the data %j", (data) => {
    const kinds = ["vm.state", "vm.stopped", "task.changed", "console.opened", "auth.refused", "host.started"] as const;
    for (const kind of kinds) expect(describe(makeEvent(1, kind, data))).toEqual(expect.any(String));
  });
  it("shows an unknown kind by its name", () => {
    expect(describe(makeEvent(1, "vm.teleported" as never, {}))).toBe("vm.teleported");
  });
  it("does not let a text grow without a bound", () => {
    expect(describe(makeEvent(1, "host.kernelLost", { detail: "x".repeat(10_000) })).length).toBeLessThan(300);
  });
});
