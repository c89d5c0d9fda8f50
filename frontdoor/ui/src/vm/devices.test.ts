// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from "vitest";
import type { DiskSpec, NICSpec, RateLimit } from "../api/model";
import { diskLine, limitText, nicLine, parseDisks, parseNICs, printSize } from "./devices";

describe("parseDisks", () => {
  it("reads a disk a line", () => {
    expect(parseDisks("a.img\n\n dir/b.img,ro,serial=no 1 \n")).toEqual([
      { path: "a.img" }, { path: "dir/b.img", readOnly: true, serial: "no 1" },
    ]);
    expect(parseDisks("")).toEqual([]);
    expect(parseDisks("c,ro,format=qcow2,backing=qcow2:d:1,backing=raw:e")).toEqual([
      { path: "c", readOnly: true, format: "qcow2", backing: [{ path: "d:1", format: "qcow2" }, { path: "e", format: "raw" }] },
    ]);
  });
  it("reads limits as vmctl does", () => {
    const limit = (words: string) => parseDisks(`a,${words}`);
    expect(limit("bytes=50M,ops=1000,burst=200ms")).toEqual([
      { path: "a", limit: { bytesPerSecond: 50 * 2 ** 20, opsPerSecond: 1000, burstMillis: 200 } },
    ]);
    for (const [text, bytesPerSecond] of [["5", 5 << 20], ["4k", 4096], ["1.5GiB", 1.5 * 2 ** 30], ["1t", 2 ** 40], ["4097b", 4097], ["4.0009K", 4096]]) {
      expect(limit(`bytes=${text}`)).toEqual([{ path: "a", limit: { bytesPerSecond } }]);
    }
    for (const [text, burstMillis] of [["1m0s", 60000], ["1.005s", 1005], ["1s500ms", 1500], ["1.9ms", 1]]) {
      expect(limit(`ops=1,burst=${text}`)).toEqual([{ path: "a", limit: { opsPerSecond: 1, burstMillis } }]);
    }
  });
  it.each(["a.img,rw", "../a.img", ",ro", "a.img\na.img,ro", `a.img,serial=${"x".repeat(21)}`, "a.img,serial=é",
    "a,format=qcow2", "a,ro,format=vmdk", "a,format=overlay", "a,format=overlay,backing=overlay:b", "a,ro,backing=raw:b", "a,ro,format=qcow2,backing=b", "a,ro,format=qcow2,backing=raw:../b",
    "a,bytes=lots", "a,bytes=", "a,bytes=4095B", "a,bytes=2T", "a,bytes=1e9", "a,bytes=5kb", "a,ops=0", "a,ops=-1", "a,ops=1.5", "a,ops=1000000001", "a,burst=1s",
    "a,ops=1,burst=0ms", "a,ops=1,burst=1", "a,ops=1,burst=61s", "a,ops=1,burst=1s,toString=1", "a,rx-ops=1", "a,down",
    Array.from({ length: 17 }, (_, i) => `d${i}`).join("\n")])("refuses %j", (text) =>
    expect(parseDisks(text)).toHaveProperty("problem"));
});

describe("parseNICs", () => {
  it("reads a network card a line", () => {
    expect(parseNICs("br0\n\n lan-1,mac=52:54:00:12:34:56 \n")).toEqual([
      { bridge: "br0" }, { bridge: "lan-1", mac: "52:54:00:12:34:56" },
    ]);
    expect(parseNICs("")).toEqual([]);
  });
  it("reads links, and limits of both sides", () => {
    expect(parseNICs("br0,down,mac=52:54:00:12:34:56,rx-bytes=1M,rx-burst=1s,tx-ops=7")).toEqual([{
      bridge: "br0", mac: "52:54:00:12:34:56", linkDown: true,
      receiveLimit: { bytesPerSecond: 2 ** 20, burstMillis: 1000 }, sendLimit: { opsPerSecond: 7 },
    }]);
  });
  it.each(["br0,mac=", "br0,mac=53:54:00:12:34:56", "br0,ip=1", "a bridge", "x".repeat(16),
    ",down", "br0,up", "br0,bytes=1M", "br0,rx-mac=52:54:00:12:34:56", "br0,rx-bytes=1K", "br0,rx-burst=1s", "br0,rx-ops=1,tx-burst=1s", "br0,constructor=1",
    Array.from({ length: 9 }, () => "br0").join("\n")])("refuses %j", (text) =>
    expect(parseNICs(text)).toHaveProperty("problem"));
});

describe("diskLine and nicLine", () => {
  const rates: RateLimit[] = [
    { bytesPerSecond: 4096 }, { bytesPerSecond: 4097 }, { bytesPerSecond: 2 ** 40 }, { bytesPerSecond: 1.5 * 2 ** 30 },
    { opsPerSecond: 1 }, { opsPerSecond: 1e9, burstMillis: 1 }, { bytesPerSecond: 50 << 20, opsPerSecond: 1000, burstMillis: 60000 },
    { opsPerSecond: 5, burstMillis: 1500 },
  ];
  it("say what vmctl says", () => {
    expect(diskLine({ path: "a", readOnly: true, limit: { bytesPerSecond: 50 << 20, opsPerSecond: 1000, burstMillis: 200 } })).toBe(
      "a,ro,bytes=50M,ops=1000,burst=200ms",
    );
    expect(nicLine({ bridge: "br0", linkDown: true, receiveLimit: { opsPerSecond: 5 }, sendLimit: { bytesPerSecond: 2 ** 30 } })).toBe(
      "br0,down,rx-ops=5,tx-bytes=1G",
    );
  });
  it.each(rates)("are read back with the limit %j", (limit) => {
    const disks: DiskSpec[] = [
      { path: "a b", limit },
      { path: "c", readOnly: true, serial: "x=1", format: "qcow2", backing: [{ path: "d:1", format: "qcow2" }, { path: "e", format: "raw" }], limit },
    ];
    expect(parseDisks(disks.map(diskLine).join("\n"))).toEqual(disks);
    const nics: NICSpec[] = [
      { bridge: "br0", receiveLimit: limit },
      { bridge: "br0", mac: "52:54:00:12:34:56", linkDown: true, sendLimit: limit },
    ];
    expect(parseNICs(nics.map(nicLine).join("\n"))).toEqual(nics);
  });
});

describe("printSize", () => {
  it.each([[4096, "4K"], [4097, "4097B"], [1.5 * 2 ** 30, "1536M"], [2 ** 40, "1T"], [3 * 2 ** 30, "3G"]])("%d is %s", (bytes, text) =>
    expect(printSize(bytes)).toBe(text));
});

describe("limitText", () => {
  it("speaks to people", () => {
    expect(limitText({ bytesPerSecond: 50 << 20, opsPerSecond: 1000 }, "requests")).toBe("at most 50 MiB/s, 1,000 requests/s");
    expect(limitText({ opsPerSecond: 5, burstMillis: 2000 }, "packets")).toBe("at most 5 packets/s, bursts of 2,000 ms");
  });
});
