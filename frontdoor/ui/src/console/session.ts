// SPDX-License-Identifier: Apache-2.0
// One console as the page holds it, over as many connections as it takes.
//
//   opening ──OK──► open ──drop, server's close──► waiting ──► opening
//      └─────────────┴──final reason, close()──► closed ──open()──► opening
//
// Each connection needs a token of its own. It asks for what was printed since
// the last byte that arrived, so that nothing is shown twice or lost.
import type { ConsoleMode, ConsoleToken } from "../api/model";
import { toApiError } from "../api/problem";
import { decode, pong, resize, type ServerFrame, subprotocol, take, typed, type Viewer } from "./frame";

/** The server pings each 20 s; after this much silence the line is dead. */
export const silenceLimit = 50_000;
export const maxDelay = 15_000;
/** Time for token, upgrade and OK together. */
const openLimit = 20_000;

export type ConsoleState =
  | { at: "opening" }
  | { at: "open"; me: number; viewers: readonly Viewer[] }
  | { at: "waiting"; reason: string; retryAt: number }
  | { at: "closed"; reason: string; requestId?: string };

export interface ConsoleOptions {
  token(mode: ConsoleMode): Promise<ConsoleToken>;
  /** Opens the WebSocket; `since` is the offset of the first byte that is not here yet. */
  dial(token: string, since: number, protocol: string): WebSocket;
  onState(state: ConsoleState): void;
  onPrint(printed: Uint8Array, about: PrintAbout): void;
}

export interface PrintAbout {
  /** How many bytes before these are lost. */
  gap: number;
  /** Clear the screen first. */
  fresh: boolean;
  /** Printed before this connection: what asks the terminal something was answered then. */
  past: boolean;
}

/** Why the server closes, by the codes of the protocol. */
const closeReasons: Record<number, { text: string; again: boolean }> = {
  1: { text: "The console token was not known.", again: true },
  2: { text: "The console token was used already.", again: true },
  3: { text: "The console token had expired.", again: true },
  4: { text: "This page did not read fast enough.", again: true },
  5: { text: "Too many others watch this console.", again: false },
  6: { text: "The login session ended.", again: false },
  7: { text: "The VM was deleted.", again: false },
  8: { text: "The VM’s monitor ended.", again: true },
  9: { text: "This page and the monitor do not speak the same protocol.", again: false },
};

export class ConsoleSession {
  #mode: ConsoleMode = "rw";
  #socket: WebSocket | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #attempt = 0;
  #failures = 0;
  #next = 0;
  #me = 0;
  #heardAt = 0;
  #state: ConsoleState = { at: "closed", reason: "" };
  #size: { cols: number; rows: number } | undefined;

  constructor(private readonly options: ConsoleOptions) {}

  /** open connects now, whatever was before. */
  open(mode: ConsoleMode = this.#mode): void {
    this.#mode = mode;
    this.#leave();
    void this.#connect(this.#attempt);
  }

  close(reason = "Closed by you."): void {
    this.#leave();
    this.#set({ at: "closed", reason });
  }

  /** wake ends a pause and a connection that died while the computer slept. */
  wake(): void {
    const stale = this.#state.at === "open" && Date.now() - this.#heardAt > silenceLimit / 2;
    if (this.#state.at === "waiting" || stale) this.open();
  }

  /** type sends bytes, if this viewer may write; says whether it did. */
  type(bytes: Uint8Array): boolean {
    if (!this.writing) return false;
    for (const frame of typed(bytes)) this.#socket?.send(frame);
    return true;
  }

  /** take asks to become the writer. */
  take(): void {
    if (this.#state.at === "open") this.#socket?.send(take());
  }

  resize(cols: number, rows: number): void {
    this.#size = { cols, rows };
    if (this.#state.at === "open") this.#socket?.send(resize(cols, rows));
  }

  get writing(): boolean {
    const state = this.#state;
    return state.at === "open" && state.viewers.some((v) => v.id === state.me && v.writer);
  }

  async #connect(attempt: number): Promise<void> {
    this.#set({ at: "opening" });
    this.#expect(attempt, openLimit, "The console did not answer.");
    try {
      const { token } = await this.options.token(this.#mode);
      if (attempt !== this.#attempt) return;
      const socket = this.options.dial(token, this.#next, subprotocol);
      socket.binaryType = "arraybuffer";
      this.#socket = socket;
      socket.onmessage = (message) => this.#message(attempt, message.data);
      socket.onclose = (event) => this.#closed(attempt, event.code, event.reason);
    } catch (thrown) {
      if (attempt === this.#attempt) this.#refused(thrown);
    }
  }

  #refused(thrown: unknown): void {
    const error = toApiError(thrown);
    // A VM that is stopping grants no token; a moment later it does.
    if (error.transient || error.code === "limitExceeded" || error.code === "stateConflict") {
      this.#pause(error.message, error.retryAfter);
    } else {
      this.#leave();
      this.#set({ at: "closed", reason: error.message, requestId: error.requestId });
    }
  }

  #message(attempt: number, data: unknown): void {
    if (attempt !== this.#attempt) return;
    let frame: ServerFrame;
    try {
      frame = decode(data as ArrayBuffer);
    } catch {
      this.close("The server sent something that is no console frame.");
      return;
    }
    this.#heardAt = Date.now();
    if (this.#state.at === "open" || frame.type === "ok") {
      this.#expect(attempt, silenceLimit, "The connection went silent.");
    }
    this.#frame(attempt, frame);
  }

  #frame(attempt: number, frame: ServerFrame): void {
    switch (frame.type) {
      case "ok":
        this.#opened(frame);
        return;
      case "history":
        this.#history(frame.offset, frame.printed);
        return;
      case "data":
        this.#next += frame.printed.length;
        this.options.onPrint(frame.printed, { gap: 0, fresh: false, past: false });
        return;
      case "viewers":
        if (this.#state.at === "open") this.#set({ ...this.#state, viewers: frame.viewers });
        return;
      case "ping":
        this.#socket?.send(pong());
        return;
      case "close":
        this.#closed(attempt, 4000 + frame.code, frame.text);
    }
  }

  #opened(ok: { viewer: number; writer: boolean; offset: number }): void {
    this.#failures = 0;
    this.#me = ok.viewer;
    // A shorter log than what is here is another log: begin anew.
    if (ok.offset < this.#next) {
      this.#next = 0;
      this.options.onPrint(new Uint8Array(), { gap: 0, fresh: true, past: true });
    }
    const viewers = [{ id: ok.viewer, user: "", writer: ok.writer }];
    this.#set({ at: "open", me: this.#me, viewers });
    if (this.#size) this.resize(this.#size.cols, this.#size.rows);
  }

  #history(offset: number, printed: Uint8Array): void {
    // What is here already is not shown twice.
    const known = Math.min(Math.max(0, this.#next - offset), printed.length);
    const gap = Math.max(0, offset - this.#next);
    this.#next = Math.max(this.#next, offset + printed.length);
    this.options.onPrint(printed.subarray(known), { gap, fresh: false, past: true });
  }

  #closed(attempt: number, code: number, text: string): void {
    if (attempt !== this.#attempt) return;
    const known = closeReasons[code - 4000];
    const reason = [known?.text ?? "The connection was lost.", text && `(${text})`].filter(Boolean).join(" ");
    if (known && !known.again) this.close(reason);
    else this.#pause(reason, undefined);
  }

  #pause(reason: string, retryAfter: number | undefined): void {
    this.#leave();
    const backoff = Math.min(maxDelay, 500 * 2 ** this.#failures) * (0.75 + Math.random() / 2);
    this.#failures = Math.min(this.#failures + 1, 10);
    const delay = retryAfter ?? backoff;
    this.#set({ at: "waiting", reason, retryAt: Date.now() + delay });
    this.#timer = setTimeout(() => this.open(), delay);
  }

  /** #expect gives the connection up when nothing comes in time. */
  #expect(attempt: number, limit: number, reason: string): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      if (attempt === this.#attempt) this.#pause(reason, undefined);
    }, limit);
  }

  /** #leave ends the connection; nothing of it is heard any more. */
  #leave(): void {
    this.#attempt++;
    clearTimeout(this.#timer);
    this.#socket?.close();
    this.#socket = undefined;
  }

  #set(state: ConsoleState): void {
    this.#state = state;
    this.options.onState(state);
  }
}
