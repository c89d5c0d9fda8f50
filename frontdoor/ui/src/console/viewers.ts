// SPDX-License-Identifier: Apache-2.0
import type { Viewer } from "./frame";

/** viewersText says who types and who watches. */
export function viewersText(viewers: readonly Viewer[], me: number): string {
  const writer = viewers.find((v) => v.writer);
  const who = !writer ? "Nobody types." : writer.id === me ? "You type." : `${writer.user} types.`;
  const others = viewers.filter((v) => v.id !== me && v !== writer).map((v) => v.user);
  if (others.length === 0) return who;
  const named = others.slice(0, 3).join(", ");
  const more = others.length > 3 ? ` and ${others.length - 3} more` : "";
  return `${who} Also here: ${named}${more}.`;
}
