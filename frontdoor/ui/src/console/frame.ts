// SPDX-License-Identifier: Apache-2.0
// The frames of monitor/console/proto as they travel on a WebSocket: a type
// byte and the payload, numbers big endian, strings with a length of four
// bytes. Hello is not here: the front door says it.

export const subprotocol = "vmctl.console.v1";

/** The most that one Data frame of a client may carry, in bytes. */
export const maxTyped = 4096;

const type = {
  ok: 0x02,
  history: 0x03,
  data: 0x04,
  viewers: 0x05,
  take: 0x06,
  resize: 0x07,
  ping: 0x08,
  pong: 0x09,
  close: 0x0a,
} as const;

export interface Viewer {
  id: number;
  user: string;
  writer: boolean;
}

/** What the server sends. Offsets count the bytes that the guest ever printed. */
export type ServerFrame =
  | { type: "ok"; viewer: number; writer: boolean; offset: number }
  | { type: "history"; offset: number; printed: Uint8Array }
  | { type: "data"; printed: Uint8Array }
  | { type: "viewers"; viewers: Viewer[] }
  | { type: "ping" }
  | { type: "close"; code: number; text: string };

/** FrameError is a frame that is not of this protocol. */
export class FrameError extends Error {}

/** decode reads one message of the server. Throws FrameError. */
export function decode(message: ArrayBuffer): ServerFrame {
  const r = new Reader(message);
  const frame = read(r, r.u8());
  if (r.left !== 0) throw new FrameError("bytes behind the frame");
  return frame;
}

function read(r: Reader, kind: number): ServerFrame {
  switch (kind) {
    case type.ok:
      return { type: "ok", viewer: r.u32(), writer: r.bool(), offset: r.u64() };
    case type.history:
      return { type: "history", offset: r.u64(), printed: r.rest() };
    case type.data:
      return { type: "data", printed: r.rest() };
    case type.viewers: {
      const viewers: Viewer[] = [];
      for (let n = r.u16(); n > 0; n--) {
        viewers.push({ id: r.u32(), user: r.string(), writer: r.bool() });
      }
      return { type: "viewers", viewers };
    }
    case type.ping:
      return { type: "ping" };
    case type.close:
      return { type: "close", code: r.u16(), text: r.string() };
    default:
      throw new FrameError(`frame of unknown type ${kind}`);
  }
}

/** typed splits what was typed into frames. */
export function typed(bytes: Uint8Array): Uint8Array<ArrayBuffer>[] {
  const frames = [];
  for (let at = 0; at < bytes.length; at += maxTyped) {
    const part = bytes.subarray(at, at + maxTyped);
    const frame = new Uint8Array(1 + part.length);
    frame[0] = type.data;
    frame.set(part, 1);
    frames.push(frame);
  }
  return frames;
}

export const take = () => Uint8Array.of(type.take);
export const pong = () => Uint8Array.of(type.pong);

export function resize(cols: number, rows: number): Uint8Array<ArrayBuffer> {
  const frame = new DataView(new ArrayBuffer(5));
  frame.setUint8(0, type.resize);
  frame.setUint16(1, cols);
  frame.setUint16(3, rows);
  return new Uint8Array(frame.buffer);
}

/** Reader takes fields off a message; each method throws when there is too little. */
class Reader {
  readonly #view: DataView;
  #at = 0;

  constructor(message: ArrayBuffer) {
    this.#view = new DataView(message);
  }

  get left(): number {
    return this.#view.byteLength - this.#at;
  }

  u8 = () => this.#view.getUint8(this.#take(1));
  u16 = () => this.#view.getUint16(this.#take(2));
  u32 = () => this.#view.getUint32(this.#take(4));

  u64(): number {
    const n = this.#view.getBigUint64(this.#take(8));
    if (n > BigInt(Number.MAX_SAFE_INTEGER)) throw new FrameError("offset is too large");
    return Number(n);
  }

  bool(): boolean {
    const n = this.u8();
    if (n > 1) throw new FrameError("neither true nor false");
    return n === 1;
  }

  bytes(n: number): Uint8Array {
    return new Uint8Array(this.#view.buffer, this.#take(n), n);
  }

  rest = () => this.bytes(this.left);
  string = () => new TextDecoder().decode(this.bytes(this.u32()));

  #take(n: number): number {
    if (n > this.left) throw new FrameError("frame is too short");
    const at = this.#at;
    this.#at += n;
    return at;
  }
}
