// SPDX-License-Identifier: Apache-2.0
// The latest events that reached the page, in order. A list that was fetched
// while events went on arriving is brought up to date from here.
import type { Event } from "../api/model";

export class Journal {
  #events: readonly Event[] = [];
  #forgotten = 0;
  #listeners = new Set<() => void>();

  constructor(readonly max: number) {}

  /** add appends events that are newer than what is there, and returns those. */
  add(events: readonly Event[]): readonly Event[] {
    const end = this.lastSeq;
    const fresh = events.filter((e) => e.seq > end);
    if (fresh.length === 0) return fresh;
    const all = [...this.#events, ...fresh];
    const cut = Math.max(0, all.length - this.max);
    if (cut > 0) this.#forgotten = all[cut - 1]!.seq;
    this.#events = all.slice(cut);
    this.#tell();
    return fresh;
  }

  /** clear forgets all of it: the server said that there is a gap. */
  clear(upTo = 0): void {
    this.#events = [];
    this.#forgotten = upTo;
    this.#tell();
  }

  /** all is a new array only when something changed. */
  all = (): readonly Event[] => this.#events;

  get lastSeq(): number {
    return this.#events.at(-1)?.seq ?? this.#forgotten;
  }

  /** covers says whether every event after seq that came is still here. */
  covers(seq: number): boolean {
    return seq >= this.#forgotten;
  }

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  #tell(): void {
    for (const listener of this.#listeners) listener();
  }
}
