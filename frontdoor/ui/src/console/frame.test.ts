// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from "vitest";
import { decode, FrameError, maxTyped, pong, resize, take, typed } from "./frame";

const message = (...bytes: number[]) => Uint8Array.from(bytes).buffer;
const chars = (text: string) => [...new TextEncoder().encode(text)];
const string = (text: string) => [0, 0, 0, chars(text).length, ...chars(text)];

describe("decode", () => {
  it("reads OK", () => {
    expect(decode(message(2, 0, 0, 0, 7, 1, 0, 0, 0, 1, 0, 0, 0, 9))).toEqual({
      type: "ok", viewer: 7, writer: true, offset: 2 ** 32 + 9,
    });
  });
  it("reads History with its offset", () => {
    expect(decode(message(3, 0, 0, 0, 0, 0, 0, 1, 0, 65, 66))).toEqual({
      type: "history", offset: 256, printed: Uint8Array.of(65, 66),
    });
  });
  it("reads Data, of no bytes as well", () => {
    expect(decode(message(4, 104, 105))).toEqual({ type: "data", printed: Uint8Array.of(104, 105) });
    expect(decode(message(4))).toEqual({ type: "data", printed: new Uint8Array() });
  });
  it("reads Viewers", () => {
    expect(decode(message(5, 0, 2, 0, 0, 0, 1, ...string("unix:0"), 1, 0, 0, 0, 2, ...string("local:é"), 0))).toEqual({
      type: "viewers",
      viewers: [{ id: 1, user: "unix:0", writer: true }, { id: 2, user: "local:é", writer: false }],
    });
  });
  it("reads Ping and Close", () => {
    expect(decode(message(8))).toEqual({ type: "ping" });
    expect(decode(message(10, 0, 4, ...string("late")))).toEqual({ type: "close", code: 4, text: "late" });
  });

  it.each([
    ["nothing", []],
    ["an unknown type", [99]],
    ["a client's frame", [6]],
    ["OK cut short", [2, 0, 0, 0, 7, 1]],
    ["OK with a tail", [2, 0, 0, 0, 7, 1, 0, 0, 0, 0, 0, 0, 0, 9, 9]],
    ["OK with a bool of 2", [2, 0, 0, 0, 7, 2, 0, 0, 0, 0, 0, 0, 0, 9]],
    ["an offset above 2^53", [3, 255, 255, 255, 255, 255, 255, 255, 255]],
    ["History without offset", [3, 0, 0]],
    ["more viewers than there are", [5, 255, 255, 0, 0, 0, 1, ...string("a"), 1]],
    ["a string longer than the frame", [10, 0, 4, 255, 255, 255, 255, 65]],
    ["Ping with a payload", [8, 1]],
  ])("refuses %s", (_, bytes) => expect(() => decode(message(...bytes))).toThrow(FrameError));
});

describe("what a client sends", () => {
  it("splits what was typed", () => {
    const bytes = Uint8Array.from({ length: maxTyped * 2 + 1 }, (_, i) => i % 251);
    const frames = typed(bytes);
    expect(frames.map((f) => f.length)).toEqual([maxTyped + 1, maxTyped + 1, 2]);
    expect(frames.every((f) => f[0] === 4)).toBe(true);
    expect(frames.flatMap((f) => [...f.subarray(1)])).toEqual([...bytes]);
    expect(typed(new Uint8Array())).toEqual([]);
  });
  it("writes the others", () => {
    expect([...take()]).toEqual([6]);
    expect([...pong()]).toEqual([9]);
    expect([...resize(80, 300)]).toEqual([7, 0, 80, 1, 44]);
  });
});
