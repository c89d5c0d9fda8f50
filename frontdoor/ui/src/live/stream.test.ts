// SPDX-License-Identifier: Apache-2.0
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Event, StreamEnd } from "../api/model";
import { EventStream, silenceLimit, type StreamState } from "./stream";

/** A server whose answers the test writes by hand. */
class Server {
  calls: { since: number; write: (text: string) => void; end: () => void; signal: AbortSignal }[] = [];
  refuse: Response | Error | undefined;

  open = (since: number, signal: AbortSignal): Promise<Response> => {
    if (this.refuse instanceof Error) return Promise.reject(this.refuse);
    if (this.refuse) return Promise.resolve(this.refuse.clone());
    let controller!: ReadableStreamDefaultController<Uint8Array>;
    const body = new ReadableStream<Uint8Array>({ start: (c) => void (controller = c) });
    signal.addEventListener("abort", () => {
      try {
        controller.error(new DOMException("aborted", "AbortError"));
      } catch {
        // It had ended.
      }
    });
    const encoder = new TextEncoder();
    this.calls.push({
      since,
      signal,
      write: (text) => controller.enqueue(encoder.encode(text)),
      end: () => controller.close(),
    });
    return Promise.resolve(new Response(body, { status: 200 }));
  };
}

function watch(server: Server) {
  const seen = { events: [] as Event[], resets: [] as StreamEnd[], states: [] as StreamState["at"][], last: undefined as StreamState | undefined };
  const stream = new EventStream({
    open: server.open,
    since: () => seen.events.at(-1)?.seq ?? 10,
    onEvents: (events) => seen.events.push(...events),
    onReset: (end) => seen.resets.push(end),
    onState: (state) => {
      seen.states.push(state.at);
      seen.last = state;
    },
  });
  stream.start();
  return { seen, stream };
}

const line = (seq: number) =>
  `id: ${seq}\nevent: vm.reset\ndata: {"seq":${seq},"time":"","kind":"vm.reset","data":{}}\n\n`;
const settle = () => vi.advanceTimersByTimeAsync(0);

describe("EventStream", () => {
  beforeEach(() => vi.useFakeTimers());
  afterEach(() => vi.useRealTimers());

  it("delivers what comes in pieces, and skips what it cannot read", async () => {
    const server = new Server();
    const { seen, stream } = watch(server);
    await settle();
    server.calls[0]!.write(": hello\n\n" + line(11).slice(0, 20));
    await settle();
    expect(seen.events).toEqual([]);
    server.calls[0]!.write(line(11).slice(20) + "event: vm.state\ndata: {broken\n\ndata: 7\n\n" + line(12));
    await settle();
    expect(seen.events.map((e) => e.seq)).toEqual([11, 12]);
    expect(seen.last?.at).toBe("live");
    stream.stop();
  });

  it("resumes after the last event when the connection ends", async () => {
    const server = new Server();
    const { seen, stream } = watch(server);
    await settle();
    server.calls[0]!.write(line(11) + line(12));
    await settle();
    server.calls[0]!.end();
    await settle();
    expect(seen.last?.at).toBe("waiting");
    await vi.advanceTimersByTimeAsync(1000);
    expect(server.calls.map((c) => c.since)).toEqual([10, 12]);
    stream.stop();
  });

  it("takes a silent connection for dead", async () => {
    const server = new Server();
    const { stream } = watch(server);
    await settle();
    await vi.advanceTimersByTimeAsync(silenceLimit - 1000);
    server.calls[0]!.write(": alive\n\n");
    await vi.advanceTimersByTimeAsync(silenceLimit - 1000);
    expect(server.calls).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(3000);
    expect(server.calls).toHaveLength(2);
    expect(server.calls[0]!.signal.aborted).toBe(true);
    stream.stop();
  });

  it("drops a stale connection at once when the page wakes, and keeps a fresh one", async () => {
    const server = new Server();
    const { stream } = watch(server);
    await settle();
    stream.wake();
    await settle();
    expect(server.calls[0]!.signal.aborted).toBe(false);
    vi.setSystemTime(Date.now() + silenceLimit);
    stream.wake();
    await vi.advanceTimersByTimeAsync(1000);
    expect(server.calls).toHaveLength(2);
    stream.stop();
  });

  it("hands a reset on, after the events before it", async () => {
    const server = new Server();
    const { seen, stream } = watch(server);
    await settle();
    server.calls[0]!.write(line(11) + 'id: 90\nevent: reset\ndata: {"reason":"too old","seq":90}\n\n' + line(91));
    await settle();
    expect(seen.resets).toEqual([{ reason: "too old", seq: 90 }]);
    expect(seen.events.map((e) => e.seq)).toEqual([11, 91]);
    stream.stop();
  });

  it("waits as long as the server asks, with its reason", async () => {
    const server = new Server();
    const body = JSON.stringify({ code: "unavailable", detail: "restarting", requestId: "r" });
    server.refuse = new Response(body, { status: 503, headers: { "Retry-After": "7" } });
    const { seen, stream } = watch(server);
    await settle();
    expect(seen.last).toMatchObject({ at: "waiting", error: { code: "unavailable", requestId: "r" } });
    server.refuse = undefined;
    await vi.advanceTimersByTimeAsync(6900);
    expect(server.calls).toHaveLength(0);
    await vi.advanceTimersByTimeAsync(200);
    expect(seen.last?.at).toBe("live");
    stream.stop();
  });

  it("waits longer each time, up to a limit, and not at all when woken", async () => {
    const server = new Server();
    server.refuse = new TypeError("network");
    const { seen, stream } = watch(server);
    await vi.advanceTimersByTimeAsync(120_000);
    const tries = seen.states.filter((s) => s === "connecting").length;
    expect(tries).toBeGreaterThan(8);
    expect(tries).toBeLessThan(20);
    server.refuse = undefined;
    stream.wake();
    await settle();
    expect(seen.last?.at).toBe("live");
    stream.stop();
  });

  it("is over when the session is", async () => {
    const server = new Server();
    server.refuse = new Response('{"code":"sessionUnknown","detail":"ended"}', { status: 401 });
    const { seen, stream } = watch(server);
    await vi.advanceTimersByTimeAsync(60_000);
    stream.wake();
    await settle();
    expect(seen.states).toEqual(["connecting", "over"]);
  });

  it("leaves nothing behind when stopped", async () => {
    const server = new Server();
    const { seen, stream } = watch(server);
    await settle();
    stream.stop();
    await vi.advanceTimersByTimeAsync(120_000);
    expect(server.calls).toHaveLength(1);
    expect(seen.states).toEqual(["connecting", "live"]);
    expect(vi.getTimerCount()).toBe(0);
  });
});
