// SPDX-License-Identifier: Apache-2.0
// The daemon's half: VMs, tasks and the journal of events.
import { randomUUID } from "node:crypto";
import { problem, readJSON, sendJSON } from "./http.mjs";

const allowed = {
  off: ["powerOn", "snapshot", "attachDisk", "detachDisk", "attachNic", "detachNic", "consoleToken", "delete"],
  starting: ["powerOff", "consoleToken"],
  running: ["powerOff", "shutdown", "reset", "pause", "save", "snapshot", "merge", "attachDisk", "detachDisk", "attachNic", "detachNic", "consoleToken"],
  stopping: ["powerOn"],
  paused: ["powerOff", "resume", "snapshot", "merge", "attachDisk", "attachNic", "consoleToken"],
};

export class World {
  clear() {
    for (const timer of this.timers ?? []) clearTimeout(timer);
    this.dropStreams();
    this.vms = new Map();
    this.seeds = new Map();
    this.tasks = [];
    this.events = [];
    this.tokens = new Map();
    this.timers = new Set();
    this.seq = 0;
    this.oldest = 0;
    this.run = 40;
    this.roles = ["admin"];
    this.away = false;
    this.failNext = undefined;
    this.onState = () => undefined;
  }

  constructor() {
    this.streams = new Set();
    this.clear();
    this.create("web", {}, {});
  }

  find(ident) {
    return this.vms.get(ident) ?? [...this.vms.values()].find((vm) => vm.name === ident);
  }

  create(name, spec, status, seed) {
    const now = new Date().toISOString();
    const state = status.state ?? "off";
    const vm = {
      id: randomUUID(), name, generation: 1,
      spec: {
        vcpus: 1, memoryBytes: 512 * 2 ** 20, console: "serial", onReset: "restart", onPoweroff: "stop", onCrash: "stop",
        boot: { kernel: "vmlinuz", initrd: "initrd.img", cmdline: "console=ttyS0" }, ...spec,
      },
      status: { state, since: now, allowed: allowed[state], ...(state === "running" && { runId: ++this.run }), ...status },
      createdAt: now, updatedAt: now,
    };
    if (seed) {
      this.seeds.set(vm.id, seed);
      const bytes = (text) => Buffer.byteLength(text ?? "");
      vm.seed = { userDataBytes: bytes(seed.userData), metaDataBytes: bytes(seed.metaData), networkConfigBytes: bytes(seed.networkConfig) };
    }
    this.vms.set(vm.id, vm);
    this.emit("vm.created", vm, vm);
    return vm;
  }

  emit(kind, vm, data) {
    const event = { seq: ++this.seq, time: new Date().toISOString(), kind, data: structuredClone(data) };
    if (vm) event.vm = { id: vm.id, name: vm.name };
    this.events.push(event);
    for (const stream of this.streams) stream.write(wire(event.seq, kind, event));
  }

  setState(vm, state, saved) {
    const { lastStop } = vm.status;
    const verbs = saved ? [...allowed[state], "powerOff"] : allowed[state];
    vm.status = { state, since: new Date().toISOString(), allowed: verbs, ...(lastStop && { lastStop }), ...(saved && { saved }) };
    if (state === "starting") this.run++;
    if (state !== "off") vm.status.runId = this.run;
    vm.updatedAt = vm.status.since;
    this.emit("vm.state", vm, vm.status);
    this.onState(vm);
  }

  stopped(vm, reason, detail, saved) {
    const claimed = !["operator", "monitorGone", "tampered", "destroyed"].includes(reason);
    vm.status.lastStop = { reason, claimed, at: new Date().toISOString(), detail, runId: this.run };
    this.emit("vm.stopped", vm, vm.status.lastStop);
    this.setState(vm, "off", saved);
  }

  dropStreams() {
    for (const stream of this.streams) stream.end();
    this.streams.clear();
  }

  /** forget: the next reader is told that the journal does not reach back. */
  forget() {
    this.oldest = ++this.seq;
    this.events = [];
    this.dropStreams();
  }

  after(ms, act) {
    const timer = setTimeout(() => {
      this.timers.delete(timer);
      act();
    }, ms);
    this.timers.add(timer);
  }

  async serve(path, url, req, res) {
    const [, noun, rest = "", below, ofDisk] = path.slice("/v1".length).split("/");
    const [ident, ofVM] = decodeURIComponent(rest).split(":");
    const [disk, verb] = ofDisk === undefined ? [undefined, ofVM] : ofDisk.split(":");
    switch (`${req.method} ${noun ?? ""}`) {
      case "GET whoami":
        return sendJSON(res, 200, { principal: "local:admin", groups: [], roles: this.roles });
      case "GET host":
        return sendJSON(res, 200, {
          hostname: "stub", kernel: "6.12.1", cpus: 4, memoryBytes: 8 * 2 ** 30, version: "stub",
          startedAt: new Date().toISOString(),
          module: { present: true, abi: 1, instance: "1", kvm: true, maxVms: 1024, maxVcpus: 64 },
        });
      case "GET events":
        return this.#stream(Number(url.searchParams.get("since") ?? this.seq), res);
      case "GET tasks":
        return sendJSON(res, 200, { items: this.#tasksOf(url.searchParams.get("vm")), eventSeq: this.seq });
      case "GET vms":
        if (!ident) return this.#list(url, res);
        return below === "seed" ? this.#seed(ident, res) : this.#get(ident, res);
      case "POST vms":
        return ident ? this.#verb(ident, verb, req, res, disk) : this.#post(await readJSON(req), res);
      case "PATCH vms":
        return this.#patch(ident, await readJSON(req), req, res);
      case "DELETE vms":
        return this.#verb(ident, "delete", req, res);
      default:
        return problem(res, 404, "notFound", "no such path");
    }
  }

  /** Pages are small, so that the interface has to turn them. */
  #list(url, res) {
    const all = [...this.vms.values()].sort((a, b) => a.name.localeCompare(b.name));
    const at = Number(url.searchParams.get("cursor") ?? 0);
    const items = all.slice(at, at + 5);
    sendJSON(res, 200, { items, eventSeq: this.seq, ...(at + 5 < all.length && { nextCursor: String(at + 5) }) });
  }

  #get(ident, res) {
    const vm = this.find(ident);
    return vm ? sendJSON(res, 200, vm, { ETag: etag(vm) }) : problem(res, 404, "notFound", "no such VM");
  }

  /** The one path below a VM that is read. */
  #seed(ident, res) {
    const seed = this.seeds.get(this.find(ident)?.id);
    if (!this.roles.includes("admin")) return problem(res, 403, "forbidden", "local:admin may not seed here");
    return seed ? sendJSON(res, 200, seed) : problem(res, 404, "notFound", "the VM has no seed");
  }

  #tasksOf(vm) {
    return this.tasks.filter((t) => !vm || t.vm.id === vm).slice(-100).reverse();
  }

  #post(body, res) {
    if (this.find(body.name)) return problem(res, 409, "exists", `there is a VM named ${body.name}`);
    if (body.spec.boot?.kernel === "missing") {
      const errors = [{ location: "body.spec.boot.kernel", message: "no such file" }];
      return problem(res, 422, "bootFileMissing", "the kernel is not in the boot folder", errors);
    }
    sendJSON(res, 201, this.create(body.name, body.spec, {}, body.seed));
  }

  #patch(ident, body, req, res) {
    const vm = this.find(ident);
    const conflict = (detail) => problem(res, 409, "stateConflict", detail);
    if (!vm) return problem(res, 404, "notFound", "no such VM");
    if (!this.roles.includes("admin")) return problem(res, 403, "forbidden", "local:admin may not change here");
    if (req.headers["content-type"] !== "application/merge-patch+json") return problem(res, 415, "invalidRequest", "not a merge patch");
    if (!req.headers["if-match"]) return problem(res, 428, "preconditionRequired", "say which generation of the VM is to change");
    if (req.headers["if-match"] !== etag(vm)) return problem(res, 412, "preconditionFailed", `the VM has generation ${vm.generation}`);
    const refused = this.failNext;
    this.failNext = undefined;
    if (refused) return problem(res, refused.status, refused.code, refused.detail);
    const { state, saved } = vm.status;
    const spec = structuredClone(vm.spec);
    mergePatch(spec, body.spec ?? {});
    spec.nics?.forEach((nic, i) => (nic.mac ??= vm.spec.nics?.[i]?.mac ?? `52:54:00:00:00:0${i}`));
    if (state !== "off" && body.name) return conflict(`the name cannot change while the VM is ${state}`);
    if ((state !== "off" || saved) && firm(spec) !== firm(vm.spec)) {
      return conflict(`only onPoweroff, onCrash, limits and links can change while the VM is ${saved ? "saved" : state}`);
    }
    this.change(vm, body.name ?? vm.name, spec);
    sendJSON(res, 200, vm, { ETag: etag(vm) });
  }

  /** change: what is changed silently no event tells of. */
  change(vm, name, spec, silent = false) {
    Object.assign(vm, { name, spec, generation: vm.generation + 1, updatedAt: new Date().toISOString() });
    if (!silent) this.emit("vm.changed", vm, vm);
  }

  async #verb(ident, verb, req, res, disk) {
    const vm = this.find(ident);
    if (!vm) return problem(res, 404, "notFound", "no such VM");
    if (this.failNext) {
      const { status, code, detail } = this.failNext;
      this.failNext = undefined;
      return problem(res, status, code, detail);
    }
    if (!vm.status.allowed.includes(verb)) {
      return problem(res, 409, "stateConflict", `${vm.name} is ${vm.status.state}`);
    }
    if (verb === "consoleToken") {
      const token = randomUUID();
      this.tokens.set(token, { vm, mode: (await readJSON(req)).mode ?? "rw" });
      const expiresAt = new Date(Date.now() + 60e3).toISOString();
      return sendJSON(res, 200, { token, expiresAt, console: "serial0", socket: "/run/vmctl/console/x.sock" });
    }
    const plug = /^(at|de)tach/.test(verb) ? await readJSON(req) : undefined;
    sendJSON(res, 202, { task: this.#start(vm, verb, disk, plug) });
  }

  #start(vm, verb, disk, plug) {
    const now = new Date().toISOString();
    const task = {
      id: randomUUID(), kind: `vm.${verb}`, vm: { id: vm.id, name: vm.name }, state: "running", progress: 0,
      queuePosition: 0, actor: "local:admin", requestId: randomUUID(), createdAt: now, startedAt: now,
      ...(disk !== undefined && { disk: Number(disk) }),
    };
    this.tasks.push(task);
    const answer = structuredClone(task);
    this.emit("task.changed", vm, task);
    if (verb === "powerOn") this.setState(vm, "starting");
    if (verb === "powerOff") this.setState(vm, "stopping");
    this.after(300, () => {
      this.#finish(vm, verb, disk, plug);
      task.state = "succeeded";
      task.progress = 100;
      task.endedAt = new Date().toISOString();
      this.emit("task.changed", vm, task);
    });
    return answer;
  }

  #finish(vm, verb, disk, plug) {
    switch (verb) {
      case "powerOn":
        return this.setState(vm, "running");
      case "powerOff":
        return this.stopped(vm, "operator", "");
      case "save":
        return this.stopped(vm, "operator", "", { at: new Date().toISOString(), bytes: 48 << 20 });
      case "shutdown":
        return this.stopped(vm, "poweroff", "");
      case "pause":
        return this.setState(vm, "paused");
      case "resume":
        return this.setState(vm, "running");
      case "reset":
        this.emit("vm.reset", vm, { runId: this.run, count: 1 });
        return this.onState(vm);
      case "snapshot":
      case "merge": {
        const { path, format, own, backing = [], ...rest } = vm.spec.disks[disk];
        vm.spec.disks[disk] =
          verb === "merge"
            ? { ...rest, ...backing[0], backing: backing.slice(1) }
            : { ...rest, path: `${vm.id}/${randomUUID()}`, format: "overlay", own: true, backing: [{ path, format, own }, ...backing] };
        vm.generation++;
        return this.emit("vm.changed", vm, vm);
      }
      case "attachDisk":
      case "detachDisk":
      case "attachNic":
      case "detachNic": {
        const { disks = [], nics = [] } = vm.spec;
        if (verb === "attachDisk") vm.spec.disks = [...disks, plug.disk];
        if (verb === "detachDisk") vm.spec.disks = disks.filter(({ path }) => path !== plug.path);
        if (verb === "attachNic") vm.spec.nics = [...nics, { mac: "52:54:00:00:00:77", ...plug.nic }];
        if (verb === "detachNic") vm.spec.nics = nics.filter(({ mac }) => mac !== plug.mac);
        vm.generation++;
        return this.emit("vm.changed", vm, vm);
      }
      case "delete":
        this.vms.delete(vm.id);
        return this.emit("vm.deleted", vm, {});
    }
  }

  #stream(since, res) {
    res.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
    res.write(": vmctl\n\n");
    if (since < this.oldest) {
      res.write(wire(this.oldest, "reset", { reason: "the journal does not reach back that far", seq: this.oldest }));
    }
    for (const event of this.events) if (event.seq > since) res.write(wire(event.seq, event.kind, event));
    this.streams.add(res);
    res.on("close", () => this.streams.delete(res));
  }
}

const etag = (vm) => `"${vm.generation}"`;

/** RFC 7396, section 2. */
function mergePatch(target, patch) {
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete target[name];
    else if (typeof value === "object" && !Array.isArray(value)) mergePatch((target[name] ??= {}), value);
    else target[name] = value;
  }
}

/** firm is what cannot change under a guest. */
const firm = ({ onPoweroff, onCrash, disks = [], nics = [], ...rest }) =>
  JSON.stringify([
    rest,
    disks.map(({ limit, ...disk }) => disk),
    nics.map(({ receiveLimit, sendLimit, linkDown, ...nic }) => nic),
  ]);

const wire = (seq, kind, data) => `id: ${seq}\nevent: ${kind}\ndata: ${JSON.stringify(data)}\n\n`;
