// SPDX-License-Identifier: Apache-2.0
// Disks and network cards as lines, one a device: a line is what --disk and --nic of
// vmctl take. What is printed here is read back as the same.
import type { DiskSpec, NICSpec, RateLimit } from "../api/model";
import { checkPath, type Finding, formatBytes, limits } from "./validate";

type Problem = { problem: string };

/** parseDisks reads FILE[,ro][,serial=TEXT][,format=FORMAT][,backing=FORMAT:FILE]... and the words of a limit. */
export function parseDisks(text: string): DiskSpec[] | Problem {
  const disks: DiskSpec[] = [];
  for (const line of linesOf(text)) {
    const disk = parseDisk(line);
    if ("problem" in disk) return disk;
    if (disks.some((d) => d.path === disk.path)) return { problem: `“${disk.path}” is there twice.` };
    disks.push(disk);
  }
  return disks.length > limits.disks ? { problem: `At most ${limits.disks} disks.` } : disks;
}

function parseDisk(line: string): DiskSpec | Problem {
  const [path = "", ...words] = line.split(",");
  const disk: DiskSpec = { path };
  const wrong = checkPath(path, true, "folder of disks");
  if (wrong && "problem" in wrong) return wrong;
  for (const word of words) {
    const [, key = "", value = ""] = /^([a-z]+)=(.*)$/.exec(word) ?? [];
    if (word === "ro") disk.readOnly = true;
    else if (key === "serial") disk.serial = value;
    else if (key === "format") {
      const format = value === "overlay" ? value : fileFormat(value);
      if (!format) return { problem: "A format is “raw”, “qcow2” or “overlay”." };
      disk.format = format;
    } else if (key === "backing") {
      const [, name = "", file = ""] = /^([^:]*):(.*)$/.exec(value) ?? [];
      const format = fileFormat(name);
      if (!format) return { problem: `“${word}” is not “backing=raw:FILE” or “backing=qcow2:FILE”.` };
      const wrong = checkPath(file, true, "folder of disks");
      if (wrong && "problem" in wrong) return wrong;
      disk.backing = [...(disk.backing ?? []), { path: file, format }];
    } else if (isRate(key)) {
      const limit = readRate(key, value);
      if ("problem" in limit) return limit;
      disk.limit = { ...disk.limit, ...limit };
    } else return { problem: `“${word}” is neither “ro” nor “serial=TEXT”, “format=FORMAT”, “backing=FORMAT:FILE” or a limit.` };
  }
  if (disk.format === "qcow2" && !disk.readOnly) return { problem: "A qcow2 image is only read: “,ro”." };
  if (disk.backing && (disk.format ?? "raw") === "raw") return { problem: "A raw disk has no backing files." };
  if (disk.format === "overlay" && !disk.backing) return { problem: "An overlay needs a backing file: “,backing=FORMAT:FILE”." };
  if (!/^[ -~]{0,20}$/.test(disk.serial ?? "")) {
    return { problem: `A serial number has at most ${limits.serial} characters of ASCII.` };
  }
  return limitsNothing(disk.limit) ? { problem: "A burst alone limits nothing: “bytes=50M” or “ops=1000” go with it." } : disk;
}

const fileFormat = (name: string) => (name === "raw" || name === "qcow2" ? name : undefined);

/** parseNICs reads BRIDGE[,mac=ADDRESS][,down] and the words of limits, behind rx- or tx-. */
export function parseNICs(text: string): NICSpec[] | Problem {
  const nics: NICSpec[] = [];
  for (const line of linesOf(text)) {
    const nic = parseNIC(line);
    if ("problem" in nic) return nic;
    nics.push(nic);
  }
  return nics.length > limits.nics ? { problem: `At most ${limits.nics} network cards.` } : nics;
}

function parseNIC(line: string): NICSpec | Problem {
  const [bridge = "", ...words] = line.split(",");
  if (!/^[^\s/]{1,15}$/.test(bridge)) return { problem: `“${bridge}” is no bridge.` };
  const nic: NICSpec = { bridge };
  for (const word of words) {
    const [, side, key = "", value = ""] = /^(?:(rx|tx)-)?([a-z]+)=(.*)$/.exec(word) ?? [];
    if (word === "down") nic.linkDown = true;
    else if (!side && key === "mac") {
      if (!/^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$/.test(value)) {
        return { problem: `“${value}” is no address of a card, such as 52:54:00:12:34:56.` };
      }
      nic.mac = value;
    } else if (side && isRate(key)) {
      const limit = readRate(key, value);
      if ("problem" in limit) return limit;
      if (side === "rx") nic.receiveLimit = { ...nic.receiveLimit, ...limit };
      else nic.sendLimit = { ...nic.sendLimit, ...limit };
    } else return { problem: `“${word}” is neither “mac=ADDRESS” nor “down” or a limit, such as “rx-bytes=10M”.` };
  }
  return limitsNothing(nic.receiveLimit) || limitsNothing(nic.sendLimit)
    ? { problem: "A burst alone limits nothing: bytes or ops of the same side go with it." }
    : nic;
}

const linesOf = (text: string) => text.split("\n").map((l) => l.trim()).filter((l) => l !== "");

const finding = (parsed: object | Problem): Finding => ("problem" in parsed ? parsed : undefined);
export const checkDisks = (text: string): Finding => finding(parseDisks(text));
export const checkNICs = (text: string): Finding => finding(parseNICs(text));

/** The words of a limit: how vmctl reads and prints them, and what the API takes. */
const rates = {
  bytes: { field: "bytesPerSecond", read: readSize, print: printSize, least: 4096, most: 2 ** 40, wanted: "from 4K to 1T, such as bytes=50M" },
  ops: { field: "opsPerSecond", read: readCount, print: String, least: 1, most: 1e9, wanted: "from 1 to 1000000000" },
  burst: { field: "burstMillis", read: readMillis, print: printMillis, least: 1, most: 60_000, wanted: "from 1ms to 1m, such as burst=200ms" },
} as const;

type Rate = keyof typeof rates;

const isRate = (key: string): key is Rate => Object.hasOwn(rates, key);

function readRate(key: Rate, value: string): RateLimit | Problem {
  const { field, read, least, most, wanted } = rates[key];
  const n = read(value);
  return n === undefined || n < least || n > most ? { problem: `“${key}=${value}” is not ${wanted}.` } : { [field]: n };
}

const limitsNothing = (limit: RateLimit | undefined) => limit && !limit.bytesPerSecond && !limit.opsPerSecond;

const units = { b: 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 } as const;

/** readSize: units are binary, M if none is given. */
function readSize(text: string): number | undefined {
  const [, number, unit, byte] = /^(\d+(?:\.\d+)?)(?:([kmgt])(?:ib)?|(b))?$/.exec(text.toLowerCase()) ?? [];
  return number === undefined ? undefined : Math.trunc(Number(number) * units[(unit ?? byte ?? "m") as keyof typeof units]);
}

/** printSize: the largest unit of which it is a whole number. */
export function printSize(bytes: number): string {
  for (const unit of ["t", "g", "m", "k"] as const) {
    if (bytes % units[unit] === 0) return `${bytes / units[unit]}${unit.toUpperCase()}`;
  }
  return `${bytes}B`;
}

function readCount(text: string): number | undefined {
  return /^\d{1,16}$/.test(text) ? Number(text) : undefined;
}

const millis = { ms: 1, s: 1000, m: 60_000 } as const;

/** readMillis: a sum, such as 1m30s. */
function readMillis(text: string): number | undefined {
  if (!/^(?:\d+(?:\.\d+)?(?:ms|s|m))+$/.test(text)) return undefined;
  let sum = 0;
  for (const [, number, unit] of text.matchAll(/([\d.]+)(ms|s|m)/g)) sum += Number(number) * millis[unit as keyof typeof millis];
  return Math.trunc(Number(sum.toFixed(6)));
}

function printMillis(n: number): string {
  return n % 1000 === 0 ? `${n / 1000}s` : `${n}ms`;
}

/** limitWords are those of a limit, each behind a comma. */
const limitWords = (limit: RateLimit | undefined, side = ""): string =>
  Object.entries(rates)
    .map(([key, { field, print }]) => (limit?.[field] ? `,${side}${key}=${print(limit[field])}` : ""))
    .join("");

export const diskLimits = ({ limit }: DiskSpec) => limitWords(limit);
export const nicLimits = ({ receiveLimit, sendLimit }: NICSpec) => limitWords(receiveLimit, "rx-") + limitWords(sendLimit, "tx-");

/** firmDisk is a disk's line without what can change under a guest. */
export const firmDisk = (disk: DiskSpec): string =>
  disk.path + (disk.readOnly ? ",ro" : "") + (disk.serial ? `,serial=${disk.serial}` : "") +
  (disk.format ? `,format=${disk.format}` : "") +
  (disk.backing ?? []).map(({ path, format }) => `,backing=${format ?? "raw"}:${path}`).join("");

/** firmNIC is the same of a network card. */
export const firmNIC = (nic: NICSpec): string => nic.bridge + (nic.mac ? `,mac=${nic.mac}` : "");

export const diskLine = (disk: DiskSpec): string => firmDisk(disk) + diskLimits(disk);
export const nicLine = (nic: NICSpec): string => firmNIC(nic) + (nic.linkDown ? ",down" : "") + nicLimits(nic);

/** sameDevices: nothing differs but what can change under a guest. */
export const sameDevices = <T>(a: readonly T[], b: readonly T[], firm: (device: T) => string): boolean =>
  a.length === b.length && a.every((device, i) => firm(device) === firm(b[i] as T));

const number = new Intl.NumberFormat("en");

/** limitText says a limit to people; ops are requests of a disk, packets of a network card. */
export function limitText(limit: RateLimit, ops: "requests" | "packets"): string {
  const parts = [];
  if (limit.bytesPerSecond) parts.push(`${formatBytes(limit.bytesPerSecond)}/s`);
  if (limit.opsPerSecond) parts.push(`${number.format(limit.opsPerSecond)} ${ops}/s`);
  if (limit.burstMillis) parts.push(`bursts of ${number.format(limit.burstMillis)} ms`);
  return `at most ${parts.join(", ")}`;
}
