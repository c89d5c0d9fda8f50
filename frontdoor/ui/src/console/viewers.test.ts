// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from "vitest";
import { viewersText } from "./viewers";

const viewer = (id: number, user: string, writer = false) => ({ id, user, writer });

describe("viewersText", () => {
  it("knows me", () => expect(viewersText([viewer(1, "local:me", true)], 1)).toBe("You type."));
  it("names who types and who watches", () => {
    const list = [viewer(1, "local:me"), viewer(2, "local:you", true), viewer(3, "unix:0")];
    expect(viewersText(list, 1)).toBe("local:you types. Also here: unix:0.");
  });
  it("stays short", () => {
    const list = [viewer(1, "me", true), ...["a", "b", "c", "d", "e"].map((u, i) => viewer(i + 2, u))];
    expect(viewersText(list, 1)).toBe("You type. Also here: a, b, c and 2 more.");
  });
  it("says when nobody may type", () => expect(viewersText([viewer(1, "me")], 1)).toBe("Nobody types."));
});
