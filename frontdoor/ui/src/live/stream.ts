// SPDX-License-Identifier: Apache-2.0
// One connection to the event stream that outlives drops, sleep and restarts
// of the server.
//
//   connecting ──headers──► live ──end, error, silence──► waiting ──► connecting
//                             └──401──► over
//
// It is made on fetch and not on EventSource: that hides the status of a
// refusal and the heartbeats, without which a socket that died in a sleeping
// laptop looks alive forever.
import { createParser, type EventSourceMessage } from "eventsource-parser";
import type { Event, StreamEnd } from "../api/model";
import { type ApiError, problemFrom, toApiError } from "../api/problem";

/** The server sends a comment each 15 s; after this much silence the line is dead. */
export const silenceLimit = 40_000;
/** Longest pause between attempts. */
export const maxDelay = 15_000;

export type StreamState =
  | { at: "connecting" }
  | { at: "live" }
  | { at: "waiting"; error: ApiError; retryAt: number }
  | { at: "over"; error: ApiError };

export interface StreamOptions {
  /** Opens the stream after event `since`. */
  open(since: number, signal: AbortSignal): Promise<Response>;
  /** Number of the last event that the page has. */
  since(): number;
  onEvents(events: Event[]): void;
  /** The journal does not reach back: list again, then go on from seq. */
  onReset(end: StreamEnd): void;
  onState(state: StreamState): void;
}

export class EventStream {
  #abort: AbortController | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #heardAt = 0;
  #failures = 0;
  #stopped = false;

  constructor(private readonly options: StreamOptions) {}

  start(): void {
    void this.#connect();
  }

  /** stop ends it for good. */
  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#abort?.abort();
  }

  /**
   * wake is called when the page is seen again or the network came back: it
   * ends a pause, and a connection that has been quiet for longer than a
   * heartbeat is taken for dead.
   */
  wake(): void {
    if (this.#stopped) return;
    if (!this.#abort) {
      clearTimeout(this.#timer);
      void this.#connect();
    } else if (Date.now() - this.#heardAt > silenceLimit / 2) {
      this.#abort.abort();
    }
  }

  async #connect(): Promise<void> {
    const abort = new AbortController();
    this.#abort = abort;
    this.options.onState({ at: "connecting" });
    let error: ApiError;
    try {
      this.#watch(abort);
      const response = await this.options.open(this.options.since(), abort.signal);
      if (!response.ok) throw problemFrom(response, await response.json().catch(() => undefined));
      this.options.onState({ at: "live" });
      await this.#read(response, abort);
      error = toApiError(undefined);
    } catch (thrown) {
      error = toApiError(thrown);
    }
    clearTimeout(this.#timer);
    this.#abort = undefined;
    if (!this.#stopped) this.#pause(error);
  }

  #pause(error: ApiError): void {
    if (error.sessionOver) {
      this.#stopped = true;
      this.options.onState({ at: "over", error });
      return;
    }
    const backoff = Math.min(maxDelay, 500 * 2 ** this.#failures);
    const delay = error.retryAfter ?? backoff * (0.75 + Math.random() / 2);
    this.#failures = Math.min(this.#failures + 1, 10);
    this.options.onState({ at: "waiting", error, retryAt: Date.now() + delay });
    this.#timer = setTimeout(() => void this.#connect(), delay);
  }

  /** #watch aborts the connection when nothing is heard for too long. */
  #watch(abort: AbortController): void {
    this.#heardAt = Date.now();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => abort.abort(), silenceLimit);
  }

  async #read(response: Response, abort: AbortController): Promise<void> {
    let batch: Event[] = [];
    const flush = () => {
      if (batch.length > 0) this.options.onEvents(batch);
      batch = [];
    };
    const parser = createParser({
      onEvent: (message) => {
        if (message.event === "reset") {
          flush();
          const end = parse<StreamEnd>(message);
          if (end) this.options.onReset(end);
          return;
        }
        const event = message.event === "dropped" ? undefined : parse<Event>(message);
        if (event && typeof event.seq === "number" && typeof event.kind === "string") {
          batch.push(event);
        }
      },
    });
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    try {
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        this.#watch(abort);
        this.#failures = 0;
        parser.feed(value);
        flush();
      }
    } finally {
      await reader.cancel().catch(() => undefined);
    }
  }
}

function parse<T>(message: EventSourceMessage): T | undefined {
  try {
    const data: unknown = JSON.parse(message.data);
    return typeof data === "object" && data !== null ? (data as T) : undefined;
  } catch {
    return undefined;
  }
}
