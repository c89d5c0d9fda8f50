// SPDX-License-Identifier: Apache-2.0
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { ApiError } from "../api/problem";
import { ConsoleSession, type ConsoleState, silenceLimit } from "./session";

/** FakeSocket is a WebSocket whose other end is the test. */
class FakeSocket {
  binaryType = "";
  sent: number[][] = [];
  closed = false;
  onmessage: ((e: { data: unknown }) => void) | null = null;
  onclose: ((e: { code: number; reason: string }) => void) | null = null;
  send = (bytes: Uint8Array) => void this.sent.push([...bytes]);
  close = () => void (this.closed = true);
  receive = (...bytes: number[]) => this.onmessage?.({ data: Uint8Array.from(bytes).buffer });
}

const chars = (text: string) => [...new TextEncoder().encode(text)];
const u64 = (n: number) => [0, 0, 0, 0, n >>> 24, (n >> 16) & 255, (n >> 8) & 255, n & 255];
const ok = (offset: number, writer = 1) => [2, 0, 0, 0, 1, writer, ...u64(offset)];
const history = (offset: number, text: string) => [3, ...u64(offset), ...chars(text)];
const data = (text: string) => [4, ...chars(text)];
const close = (code: number, text: string) => [10, 0, code, 0, 0, 0, text.length, ...chars(text)];
const viewers = (...list: [number, string, number][]) => [
  5, 0, list.length, ...list.flatMap(([id, user, writer]) => [0, 0, 0, id, 0, 0, 0, user.length, ...chars(user), writer]),
];

function start(token: () => Promise<{ token: string }> = () => Promise.resolve({ token: "t" })) {
  const dialled: { since: number; socket: FakeSocket }[] = [];
  const seen = { states: [] as ConsoleState[], screen: "", gaps: [] as number[] };
  const session = new ConsoleSession({
    token: token as never,
    dial: (_, since) => {
      const socket = new FakeSocket();
      dialled.push({ since, socket });
      return socket as unknown as WebSocket;
    },
    onState: (state) => seen.states.push(state),
    onPrint: (printed, { gap, fresh }) => {
      if (fresh) seen.screen = "";
      if (gap) seen.gaps.push(gap);
      seen.screen += new TextDecoder().decode(printed);
    },
  });
  session.open();
  const socket = () => dialled.at(-1)!.socket;
  return { session, dialled, seen, socket, state: () => seen.states.at(-1)! };
}

const settle = () => vi.advanceTimersByTimeAsync(0);

describe("ConsoleSession", () => {
  beforeEach(() => vi.useFakeTimers());
  afterEach(() => vi.useRealTimers());

  it("shows history and what follows, and sends what is typed", async () => {
    const t = start();
    await settle();
    t.socket().receive(...ok(5));
    t.socket().receive(...history(0, "boot\n"));
    t.socket().receive(...data("login: "));
    expect(t.seen.screen).toBe("boot\nlogin: ");
    expect(t.session.type(Uint8Array.of(120))).toBe(true);
    expect(t.socket().sent.at(-1)).toEqual([4, 120]);
    t.session.close();
  });

  it("resumes behind the last byte, and shows none twice", async () => {
    const t = start();
    await settle();
    t.socket().receive(...ok(4));
    t.socket().receive(...history(0, "abcd"));
    t.socket().receive(...data("ef"));
    t.socket().onclose?.({ code: 1006, reason: "" });
    expect(t.state()).toMatchObject({ at: "waiting" });
    await vi.advanceTimersByTimeAsync(1000);
    expect(t.dialled[1]!.since).toBe(6);
    t.socket().receive(...ok(9));
    t.socket().receive(...history(4, "efghi"));
    expect(t.seen.screen).toBe("abcdefghi");
    t.session.close();
  });

  it("says how much is lost when history has a gap", async () => {
    const t = start();
    await settle();
    t.socket().receive(...ok(12));
    t.socket().receive(...history(0, "ab"));
    t.socket().receive(...history(10, "yz"));
    expect(t.seen.gaps).toEqual([8]);
    expect(t.seen.screen).toBe("abyz");
    t.session.close();
  });

  it("begins anew when the log is another one", async () => {
    const t = start();
    await settle();
    t.socket().receive(...ok(4));
    t.socket().receive(...history(0, "abcd"));
    t.session.open();
    await settle();
    t.socket().receive(...ok(2));
    t.socket().receive(...history(0, "xy"));
    expect(t.seen.screen).toBe("xy");
    t.session.close();
  });

  it("knows who writes, and asks for it", async () => {
    const t = start();
    await settle();
    t.socket().receive(...ok(0, 0));
    t.socket().receive(...viewers([1, "local:me", 0], [2, "local:you", 1]));
    expect(t.session.writing).toBe(false);
    expect(t.session.type(Uint8Array.of(120))).toBe(false);
    expect(t.socket().sent).toEqual([]);
    t.session.take();
    expect(t.socket().sent).toEqual([[6]]);
    t.socket().receive(...viewers([1, "local:me", 1], [2, "local:you", 0]));
    expect(t.session.writing).toBe(true);
    t.session.close();
  });

  it("answers pings, and gives a silent connection up", async () => {
    const t = start();
    await settle();
    t.socket().receive(...ok(0));
    t.socket().receive(8);
    expect(t.socket().sent).toEqual([[9]]);
    await vi.advanceTimersByTimeAsync(silenceLimit + 1);
    expect(t.state()).toMatchObject({ at: "waiting", reason: "The connection went silent." });
    expect(t.socket().closed).toBe(true);
    t.session.close();
  });

  it.each([
    [4, "waiting"], [8, "waiting"], [3, "waiting"], [5, "closed"], [6, "closed"], [7, "closed"], [9, "closed"],
  ])("after close code %d it is %s, with the reason", async (code, at) => {
    for (const how of ["frame", "socket"]) {
      const t = start();
      await settle();
      t.socket().receive(...ok(0));
      if (how === "frame") t.socket().receive(...close(code, "why"));
      else t.socket().onclose?.({ code: 4000 + code, reason: "why" });
      expect(t.state()).toMatchObject({ at, reason: expect.stringContaining("(why)") });
      t.session.close();
    }
  });

  it("stops at a refusal, and waits at a server that is away", async () => {
    const refusal = (code: "forbidden" | "unavailable", status: number) =>
      Promise.reject(new ApiError({ code, status, detail: code, requestId: "r" }));
    const refused = start(() => refusal("forbidden", 403));
    await settle();
    expect(refused.state()).toEqual({ at: "closed", reason: "forbidden", requestId: "r" });
    const away = start(() => refusal("unavailable", 503));
    await settle();
    expect(away.state()).toMatchObject({ at: "waiting", reason: "unavailable" });
    away.session.wake();
    expect(away.state()).toEqual({ at: "opening" });
    away.session.close();
  });

  it("hears nothing of a connection that it left", async () => {
    const t = start();
    await settle();
    const first = t.socket();
    first.receive(...ok(0));
    t.session.open();
    await settle();
    first.receive(...data("ghost"));
    first.onclose?.({ code: 1000, reason: "" });
    expect(t.seen.screen).toBe("");
    expect(t.state().at).toBe("opening");
    t.session.close();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(t.state()).toMatchObject({ at: "closed" });
    expect(vi.getTimerCount()).toBe(0);
  });

  it("closes on what is no frame", async () => {
    const t = start();
    await settle();
    t.socket().onmessage?.({ data: "text" });
    expect(t.state()).toMatchObject({ at: "closed" });
  });
});
