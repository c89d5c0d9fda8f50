// SPDX-License-Identifier: Apache-2.0
import { useSyncExternalStore } from "react";

const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "narrow" });
const units: [Intl.RelativeTimeFormatUnit, number][] = [
  ["day", 86_400],
  ["hour", 3600],
  ["minute", 60],
];

/** When shows how long ago something was; the full time is its title. */
export function When({ time }: { time: string }) {
  const now = useSyncExternalStore(everyTenSeconds, () => Math.floor(Date.now() / 10_000));
  const at = new Date(time);
  if (Number.isNaN(at.getTime())) return <>–</>;
  return (
    <time dateTime={time} title={full.format(at)} className="vmctl-nowrap">
      {ago(now * 10 + 10 - at.getTime() / 1000)}
    </time>
  );
}

function ago(seconds: number): string {
  for (const [unit, size] of units) {
    if (seconds >= size) return relative.format(-Math.floor(seconds / size), unit);
  }
  return "just now";
}

/** Exact shows the time of day and the date. */
export function Exact({ time }: { time: string }) {
  const at = new Date(time);
  return <time dateTime={time}>{Number.isNaN(at.getTime()) ? "–" : full.format(at)}</time>;
}

function everyTenSeconds(tell: () => void): () => void {
  const timer = setInterval(tell, 10_000);
  return () => clearInterval(timer);
}
