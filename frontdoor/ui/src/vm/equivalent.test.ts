// SPDX-License-Identifier: Apache-2.0
import { execFileSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import type { VMSpec } from "../api/model";
import { changeLines, createLines, plugLines, quote, verbLines } from "./equivalent";
import { makeVM } from "./sample";

describe("quote", () => {
  it("leaves plain words alone", () => expect(quote("debian/vmlinuz-6.12")).toBe("debian/vmlinuz-6.12"));
  it.each(["", "a b", "it's", "$HOME `id` \\", '"', "a;rm -rf x", "*", "~", "é", "#x"])(
    "a shell reads %j back",
    (word) => expect(execFileSync("sh", ["-c", `printf %s ${quote(word)}`]).toString()).toBe(word),
  );
});

describe("createLines", () => {
  const spec = {
    vcpus: 2,
    memoryBytes: 2 ** 29,
    boot: { kernel: "vmlinuz", initrd: "initrd.img", cmdline: "console=ttyS0 name='x'" },
    console: "serial" as const,
    onReset: "restart" as const,
    onPoweroff: "stop" as const,
    onCrash: "stop" as const,
  };
  it("names disks, network cards, sockets and console", () => {
    const nics = [{ bridge: "br0" }, { bridge: "br1", mac: "52:54:00:12:34:56" }];
    const disks = [{ path: "a b.img", serial: "x" }, { path: "c.img", readOnly: true }];
    expect(createLines("web", { ...spec, boot: { kernel: "k" }, disks, nics, vsock: { cid: 7 }, console: "virtio" }).vmctl).toBe(
      "vmctl vm create web --vcpus 2 --memory 512M --kernel k --disk 'a b.img,serial=x' --disk c.img,ro --nic br0 --nic br1,mac=52:54:00:12:34:56 --vsock=7 --console virtio",
    );
  });
  it("names every part of the spec", () => {
    const lines = createLines("web", spec);
    expect(lines.vmctl).toBe(
      `vmctl vm create web --vcpus 2 --memory 512M --kernel vmlinuz --initrd initrd.img --cmdline 'console=ttyS0 name='\\''x'\\'''`,
    );
    expect(lines.curl).toContain("/run/vmctl/api.sock");
    const body = execFileSync("sh", ["-c", `set -- ${lines.curl.replace(/^curl/, "")}; printf %s "$6"`]).toString();
    expect(JSON.parse(body)).toEqual({ name: "web", spec });
  });
  it("reads a seed from files, and sends it as it is", () => {
    const seed = { userData: "#cloud-config\npassword: it's\n", networkConfig: "version: 2\n" };
    const lines = createLines("web", { ...spec, boot: { kernel: "k" } }, seed);
    expect(lines.vmctl).toBe(
      "vmctl vm create web --vcpus 2 --memory 512M --kernel k --user-data user-data --network-config network-config",
    );
    const body = execFileSync("sh", ["-c", `set -- ${lines.curl.replace(/^curl/, "")}; printf %s "$6"`]).toString();
    expect(JSON.parse(body)).toHaveProperty("seed", seed);
  });
  it("leaves out what is not there", () => {
    const lines = createLines("web", { ...spec, memoryBytes: 2 ** 31, onReset: "stop", boot: { kernel: "k" } });
    expect(lines.vmctl).toBe("vmctl vm create web --vcpus 2 --memory 2G --kernel k --on-reset stop");
    expect(createLines("web", { ...spec, boot: { kernel: "k" }, vsock: {} }).vmctl).toContain(" --vsock=auto");
    const disk = createLines("web", { ...spec, boot: {}, disks: [{ path: "debian.img" }] });
    expect(disk.vmctl).toBe("vmctl vm create web --vcpus 2 --memory 512M --disk debian.img");
  });
});

describe("changeLines", () => {
  const { spec } = makeVM("web");
  const devices = {
    disks: [{ path: "a b" }, { path: "c", limit: { opsPerSecond: 5 } }],
    nics: [{ bridge: "br0", mac: "52:54:00:12:34:56" }, { bridge: "br1", linkDown: true, sendLimit: { opsPerSecond: 1 } }],
  };
  const vm = { ...makeVM("web"), generation: 7, spec: { ...spec, ...devices, vsock: { cid: 7 } } };
  const line = (to: Partial<VMSpec>, name = "web") => changeLines(vm, { name, spec: { ...vm.spec, ...to } }).vmctl.replace("vmctl vm set web ", "");
  it.each<[Partial<VMSpec>, string]>([
    [{ vcpus: 2, memoryBytes: 2 ** 30 + 4096 }, "--vcpus 2 --memory 1048580K"],
    [{ boot: { initrd: "i", cmdline: "a b" } }, "--kernel '' --initrd i --cmdline 'a b'"],
    [{ disks: [{ path: "a b", limit: { bytesPerSecond: 2 ** 20 } }, { path: "c" }] }, "--disk-limit 0,bytes=1M --disk-limit 1"],
    [{ disks: [{ path: "c" }] }, "--disk c"],
    [{ disks: undefined, nics: [] }, "--disk '' --nic ''"],
    [{ nics: [{ ...devices.nics[0]!, linkDown: true }, { bridge: "br1" }] }, "--link 0=down --nic-limit 1 --link 1=up"],
    [{ nics: [{ bridge: "br2", linkDown: true }] }, "--nic br2,down"],
    [{ vsock: undefined, console: "virtio", onReset: "stop", onPoweroff: "restart", onCrash: "restart" },
      "--vsock= --console virtio --on-reset stop --on-poweroff restart --on-crash restart"],
  ])("%j is %s", (to, words) => expect(line(to)).toBe(words));
  it("names the generation that was looked at, and what differs", () => {
    const { curl } = changeLines(vm, { name: "www", spec: { ...vm.spec, boot: {} } });
    const body = execFileSync("sh", ["-c", `set -- ${curl.replace(/^curl/, "")}; printf '%s\\n' "$@"`]).toString().split("\n");
    expect(body).toContain('If-Match: "7"');
    expect(body).toContain("Content-Type: application/merge-patch+json");
    expect(body).toContain('{"name":"www","spec":{"boot":{"kernel":null}}}');
    expect(body).toContain("http://localhost/v1/vms/web");
  });
});

describe("plugLines", () => {
  it("names what comes as vmctl takes it, and what goes by its file or address", () => {
    const disk = { path: "a b", readOnly: true };
    expect(plugLines("web", { verb: "attachDisk", disk })).toEqual({
      vmctl: "vmctl vm attach-disk web 'a b,ro'",
      curl: expect.stringMatching(/-d '\{"disk":\{"path":"a b","readOnly":true\}\}' .*\/v1\/vms\/web:attachDisk$/) as unknown,
    });
    expect(plugLines("web", { verb: "detachDisk", path: "d" }).vmctl).toBe("vmctl vm detach-disk web d");
    expect(plugLines("web", { verb: "attachNic", nic: { bridge: "br0", linkDown: true } }).vmctl).toBe("vmctl vm attach-nic web br0,down");
    expect(plugLines("web", { verb: "detachNic", mac: "52:54:00:00:00:01" }).curl).toContain(`-d '{"mac":"52:54:00:00:00:01"}'`);
  });
});

describe("verbLines", () => {
  it("speaks of the same VM and verb", () => {
    expect(verbLines("web", "powerOn").vmctl).toBe("vmctl vm on web");
    expect(verbLines("web", "powerOn").curl).toMatch(/-X POST .*\/v1\/vms\/web:powerOn$/);
    expect(verbLines("web", "merge", 2).vmctl).toBe("vmctl vm merge web 2");
    expect(verbLines("web", "merge", 2).curl).toMatch(/-X POST .*\/v1\/vms\/web\/disks\/2:merge$/);
    expect(verbLines("web", "delete").curl).toMatch(/-X DELETE .*\/v1\/vms\/web$/);
  });
});
