// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from "vitest";
import { makeVM } from "../vm/sample";
import { withChange } from "./lists";

describe("withChange", () => {
  const web = makeVM("web", { state: "running" });
  const list = { seq: 5, byId: new Map([[web.id, web]]) };
  it("takes in a change, but not the state, of which events tell", () => {
    const after = withChange(list, { ...web, name: "www", generation: 2, status: { ...web.status, state: "off" } });
    expect(after?.byId.get(web.id)).toEqual({ ...web, name: "www", generation: 2 });
    expect(after?.seq).toBe(5);
    expect(list.byId.get(web.id)).toBe(web);
  });
  it("leaves a list that has it, or no longer the VM", () => {
    expect(withChange(list, { ...web, name: "old" })).toBe(list);
    expect(withChange(list, { ...makeVM("gone"), generation: 2 })).toBe(list);
    expect(withChange(undefined, web)).toBeUndefined();
  });
});
