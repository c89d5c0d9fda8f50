// SPDX-License-Identifier: Apache-2.0
// The monitor's half: consoles in the frames of monitor/console/proto, and a
// guest that knows one command.
import { WebSocketServer } from "ws";

const u16 = (n) => [(n >> 8) & 255, n & 255];
const u32 = (n) => [(n >>> 24) & 255, (n >> 16) & 255, (n >> 8) & 255, n & 255];
const u64 = (n) => [...u32(Math.floor(n / 2 ** 32)), ...u32(n >>> 0)];
const string = (text) => [...u32(Buffer.byteLength(text)), ...Buffer.from(text)];

const prompt = "# ";

export class Consoles {
  #byVM = new Map();
  #server = new WebSocketServer({ noServer: true, handleProtocols: (set) => set.has("vmctl.console.v1") && "vmctl.console.v1" });

  constructor(world) {
    this.world = world;
    this.clear();
  }

  clear() {
    this.closeAll(8, "stub was reset");
    this.#byVM.clear();
    this.world.onState = (vm) => {
      const console = this.#byVM.get(vm.id);
      if (console && vm.status.state === "running") console.boot();
      if (vm.status.state === "running" && !console) this.#of(vm).boot();
    };
  }

  closeAll(code, text) {
    for (const console of this.#byVM.values()) console.closeAll(code, text);
  }

  steer(vm, { print, close, other, cut }) {
    const console = this.#of(vm);
    if (print) console.print(print);
    if (close) console.closeAll(close.code, close.text);
    if (cut) console.cut();
    if (other !== undefined) console.setOther(other);
  }

  #of(vm) {
    if (!this.#byVM.has(vm.id)) this.#byVM.set(vm.id, new Console());
    return this.#byVM.get(vm.id);
  }

  upgrade(auth, req, socket, head) {
    const url = new URL(req.url, "http://stub");
    const grant = this.world.tokens.get(url.searchParams.get("token"));
    if (!auth.session(req) || !url.pathname.startsWith("/console/")) return socket.destroy();
    this.#server.handleUpgrade(req, socket, head, (ws) => {
      this.world.tokens.delete(url.searchParams.get("token"));
      if (!grant) return ws.close(4001, "nobody granted this token");
      this.#of(grant.vm).join(ws, Number(url.searchParams.get("offset") ?? 0), grant.mode, () => grant.vm.status.state === "running");
    });
  }
}

class Console {
  #log = Buffer.alloc(0);
  #viewers = [];
  #next = 1;
  #other; // somebody who is not a browser: undefined, or {writer}
  #line = "";

  boot() {
    this.#line = "";
    this.print("[    0.000000] Linux version 6.12.1 (stub)\r\n[    0.812345] Run /init as init process\r\n" + prompt);
  }

  print(text) {
    const bytes = Buffer.from(text);
    this.#log = Buffer.concat([this.#log, bytes]);
    for (const viewer of this.#viewers) viewer.ws.send(Buffer.from([4, ...bytes]));
  }

  join(ws, since, mode, running) {
    const free = mode === "rw" && !this.#other?.writer && !this.#viewers.some((v) => v.writer);
    const viewer = { ws, id: this.#next++, user: "local:admin", writer: free };
    this.#viewers.push(viewer);
    ws.send(Buffer.from([2, ...u32(viewer.id), viewer.writer ? 1 : 0, ...u64(this.#log.length)]));
    const from = since > this.#log.length ? 0 : since;
    ws.send(Buffer.from([3, ...u64(from), ...this.#log.subarray(from)]));
    this.#tell();
    ws.on("message", (data) => this.#message(viewer, data, running));
    ws.on("close", () => {
      this.#viewers = this.#viewers.filter((v) => v !== viewer);
      this.#tell();
    });
  }

  #message(viewer, data, running) {
    if (data[0] === 6) {
      for (const v of this.#viewers) v.writer = v === viewer;
      if (this.#other) this.#other.writer = false;
      this.#tell();
    }
    if (data[0] === 4 && viewer.writer && running()) for (const c of data.subarray(1).toString()) this.#typed(c);
  }

  #typed(c) {
    if (c !== "\r") {
      this.#line += c;
      return this.print(c);
    }
    const answers = { "uname -a; echo $((6*7))": "Linux guest 6.12.1 x86_64\r\n42\r\n", "": "" };
    const answer = answers[this.#line] ?? `sh: ${this.#line}: not found\r\n`;
    this.#line = "";
    this.print("\r\n" + answer + prompt);
  }

  setOther(writes) {
    this.#other = writes === null ? undefined : { writer: writes };
    if (writes) for (const v of this.#viewers) v.writer = false;
    this.#tell();
  }

  #tell() {
    const list = [...this.#viewers];
    if (this.#other) list.push({ id: 900, user: "unix:1000", writer: this.#other.writer });
    const body = list.flatMap((v) => [...u32(v.id), ...string(v.user), v.writer ? 1 : 0]);
    for (const v of this.#viewers) v.ws.send(Buffer.from([5, ...u16(list.length), ...body]));
  }

  closeAll(code, text) {
    for (const { ws } of this.#viewers) {
      ws.send(Buffer.from([10, ...u16(code), ...string(text)]));
      ws.close(4000 + code, text);
    }
  }

  /** cut ends the connections as a broken network does. */
  cut() {
    for (const { ws } of this.#viewers) ws.terminate();
  }
}
