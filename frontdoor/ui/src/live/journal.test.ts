// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it, vi } from "vitest";
import { makeEvent } from "../vm/sample";
import { Journal } from "./journal";

const event = (seq: number) => makeEvent(seq, "vm.reset", {});
const seqs = (journal: Journal) => journal.all().map((e) => e.seq);

describe("Journal", () => {
  it("takes each event once and in order", () => {
    const journal = new Journal(10);
    journal.add([event(1), event(2)]);
    expect(journal.add([event(2), event(3)]).map((e) => e.seq)).toEqual([3]);
    expect(seqs(journal)).toEqual([1, 2, 3]);
    expect(journal.lastSeq).toBe(3);
  });

  it("forgets the oldest, and knows that it did", () => {
    const journal = new Journal(2);
    journal.add([event(4), event(6), event(9)]);
    expect(seqs(journal)).toEqual([6, 9]);
    expect(journal.covers(4)).toBe(true);
    expect(journal.covers(3)).toBe(false);
  });

  it("covers nothing from before a reset", () => {
    const journal = new Journal(5);
    journal.add([event(1)]);
    journal.clear(40);
    expect(journal.covers(39)).toBe(false);
    expect(journal.covers(40)).toBe(true);
    expect(journal.lastSeq).toBe(40);
  });

  it("tells its listeners of changes only", () => {
    const journal = new Journal(5);
    const heard = vi.fn();
    const leave = journal.subscribe(heard);
    journal.add([event(1)]);
    journal.add([event(1)]);
    leave();
    journal.add([event(2)]);
    expect(heard).toHaveBeenCalledTimes(1);
  });
});
