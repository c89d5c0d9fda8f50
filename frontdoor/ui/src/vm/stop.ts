// SPDX-License-Identifier: Apache-2.0
import type { LastStop } from "../api/model";

const reasons: Record<LastStop["reason"], string> = {
  poweroff: "the guest powered off",
  operator: "stopped by an operator",
  monitorGone: "its monitor is gone",
  tampered: "its monitor tampered with the VM",
  tripleFault: "the guest crashed (triple fault)",
  panic: "the guest’s kernel panicked",
  internalError: "the monitor met an internal error",
  reset: "the guest reset itself, and its policy is to stop",
  destroyed: "destroyed in the kernel",
};

/** stopText says why a run ended, for people. */
export const stopText = (reason: unknown): string =>
  typeof reason === "string" ? (reasons[reason as LastStop["reason"]] ?? reason) : "for an unknown reason";
