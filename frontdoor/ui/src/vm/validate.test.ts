// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from "vitest";
import type { Host } from "../api/model";
import {
  checkCmdline,
  checkKernel,
  checkMemory,
  checkName,
  checkPath,
  checkSeed,
  checkVCPUs,
  formatBytes,
  memoryBytes,
} from "./validate";

const host = { cpus: 2, memoryBytes: 2 ** 32 } as Host;
const free = () => false;

describe("checkName", () => {
  // What the server's pattern says, in other words.
  const pattern = /^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$/;
  it.each([
    "a", "web", "web-1", "a1", "a".repeat(63), "a--b",
    "", "a".repeat(64), "Web", "1web", "-web", "web-", "web_1", "web.1", "wéb", "we b", "web:on", "web\n", "💻",
  ])("agrees with the API about %j", (name) => {
    expect(checkName(name, free) === undefined).toBe(pattern.test(name) && !name.endsWith("\n"));
  });
  it("names the odd character", () => {
    expect(checkName("we_b", free)).toEqual({ problem: expect.stringContaining("“_”") });
    expect(checkName("a💻", free)).toEqual({ problem: expect.stringContaining("“💻”") });
  });
  it("says when the name is taken", () => {
    expect(checkName("web", (n) => n === "web")).toHaveProperty("problem");
  });
});

describe("checkSeed", () => {
  it.each([["", ""], ["#cloud-config\n", ""], ["x".repeat(2 ** 15), "é".repeat(2 ** 14)], ["", "x".repeat(2 ** 16 + 1)]])(
    "takes what fits, and blames the other for what does not",
    (text, other) => expect(checkSeed(text, other)).toBeUndefined(),
  );
  it.each([["a\0", ""], ["x".repeat(2 ** 16 + 1), ""], ["x".repeat(2 ** 15), "é".repeat(2 ** 14) + "x"]])(
    "refuses NUL and what is too long in bytes",
    (text, other) => expect(checkSeed(text, other)).toHaveProperty("problem"),
  );
});

describe("checkVCPUs", () => {
  it.each(["1", "2", " 2 "])("takes %j", (text) => expect(checkVCPUs(text, host)).toBeUndefined());
  it.each(["", "0", "65", "-1", "1.5", "1e1", "two", "0x2", "99999999"])("refuses %j", (text) =>
    expect(checkVCPUs(text, host)).toHaveProperty("problem"));
  it("warns above what the host has", () => {
    expect(checkVCPUs("3", host)).toHaveProperty("warning");
    expect(checkVCPUs("3")).toBeUndefined();
  });
});

describe("checkMemory", () => {
  const of = (memory: string, memoryUnit: "MiB" | "GiB" = "MiB") => ({ memory, memoryUnit });
  it("counts in binary units", () => {
    expect(memoryBytes(of("512"))).toBe(536870912);
    expect(memoryBytes(of("1.5", "GiB"))).toBe(1610612736);
  });
  it.each([of("16"), of("512"), of("1", "GiB"), of("0.5", "GiB")])("takes %j", (draft) =>
    expect(checkMemory(draft, host)).toBeUndefined());
  it.each([of(""), of("0"), of("15"), of("-5"), of("1e9"), of("1025", "GiB"), of("100.001"), of("NaN"), of("512 MiB")])(
    "refuses %j",
    (draft) => expect(checkMemory(draft, host)).toHaveProperty("problem"),
  );
  it("warns above what the host has", () =>
    expect(checkMemory(of("8", "GiB"), host)).toHaveProperty("warning"));
});

describe("checkPath", () => {
  it.each(["vmlinuz", "debian/vmlinuz-6.12", "/var/lib/vmctl/boot/vmlinuz", "a..b"])("takes %j", (path) =>
    expect(checkPath(path, true)).toBeUndefined());
  it.each(["", "../etc/shadow", "a/../b", "..", "boot/", "a\0b", "x".repeat(1025)])("refuses %j", (path) =>
    expect(checkPath(path, true)).toHaveProperty("problem"));
  it("may be absent where it is optional", () => expect(checkPath("", false)).toBeUndefined());
});

describe("checkKernel", () => {
  it("wants a kernel or a disk", () => {
    expect(checkKernel({ kernel: "", disks: " \n" })).toEqual({ problem: "A kernel or a disk is needed." });
    expect(checkKernel({ kernel: "", disks: "debian.img" })).toBeUndefined();
    expect(checkKernel({ kernel: "vmlinuz", disks: "" })).toBeUndefined();
    expect(checkKernel({ kernel: "../x", disks: "debian.img" })).toHaveProperty("problem");
  });
});

describe("checkCmdline", () => {
  it("counts bytes, not characters", () => {
    expect(checkCmdline("x".repeat(2047))).toBeUndefined();
    expect(checkCmdline("x".repeat(2048))).toHaveProperty("problem");
    expect(checkCmdline("é".repeat(1024))).toEqual({ problem: expect.stringContaining("2048") });
  });
  it("is one line", () => expect(checkCmdline("a\nb")).toHaveProperty("problem"));
});

describe("formatBytes", () => {
  it.each([
    [512, "512 bytes"],
    [2 ** 29, "512 MiB"],
    [1.5 * 2 ** 30, "1.5 GiB"],
    [2 ** 40, "1 TiB"],
  ])("%d is %s", (bytes, text) => expect(formatBytes(bytes)).toBe(text));
});
