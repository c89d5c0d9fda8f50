// SPDX-License-Identifier: Apache-2.0
import { execFileSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { createLines, quote, verbLines } from "./equivalent";

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

describe("verbLines", () => {
  it("speaks of the same VM and verb", () => {
    expect(verbLines("web", "powerOn").vmctl).toBe("vmctl vm on web");
    expect(verbLines("web", "powerOn").curl).toMatch(/-X POST .*\/v1\/vms\/web:powerOn$/);
    expect(verbLines("web", "merge", 2).vmctl).toBe("vmctl vm merge web 2");
    expect(verbLines("web", "merge", 2).curl).toMatch(/-X POST .*\/v1\/vms\/web\/disks\/2:merge$/);
    expect(verbLines("web", "delete").curl).toMatch(/-X DELETE .*\/v1\/vms\/web$/);
  });
});
