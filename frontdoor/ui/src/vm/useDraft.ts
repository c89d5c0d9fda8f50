// SPDX-License-Identifier: Apache-2.0
// A draft while it is typed, and which of its findings are said by now.
import { useState } from "react";
import type { Draft, Findings } from "./draft";

export type DraftForm = ReturnType<typeof useDraft>;

export function useDraft(initial: Draft, check: (draft: Draft) => Findings) {
  const [draft, setDraft] = useState(initial);
  const [touched, setTouched] = useState<Partial<Record<keyof Draft, boolean>>>({});
  const [tried, setTried] = useState(false);
  const findings = check(draft);
  const bad = Object.values(findings).some((f) => f && "problem" in f);
  return {
    draft,
    bad,
    /** Something is wrong, and was said. */
    stuck: tried && bad,
    set: (field: keyof Draft) => (value: string) => {
      setDraft({ ...draft, [field]: value });
      setTouched({ ...touched, [field]: true });
    },
    shown: (field: keyof Draft) => {
      const finding = findings[field];
      // What is missing is said when the form is sent, not before it was typed.
      return tried || touched[field] || (finding && "warning" in finding) ? finding : undefined;
    },
    attempt: () => setTried(true),
    begin: (anew: Draft) => {
      setDraft(anew);
      setTouched({});
      setTried(false);
    },
  };
}
