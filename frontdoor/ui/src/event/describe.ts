// SPDX-License-Identifier: Apache-2.0
// One line for people from an event. What is not known is shown by its kind:
// newer servers have more of them.
import type { Event } from "../api/model";
import { stopText } from "../vm/stop";

export function describe(event: Event): string {
  const data = fields(event.data);
  switch (event.kind) {
    case "vm.created":
      return "Created";
    case "vm.changed":
      return "Configuration changed";
    case "vm.deleted":
      return "Deleted";
    case "vm.state":
      return `Now ${text(data.state)}`;
    case "vm.stopped":
      return `Stopped: ${stopText(data.reason)}${data.detail ? ` (${text(data.detail)})` : ""}`;
    case "vm.reset":
      return "The guest reset itself";
    case "vm.deviceBroken":
      return `The guest broke ${text(data.device)}: ${text(data.detail)}`;
    case "vm.unknown":
      return `In the kernel, not in the inventory: ${text(data.name)}`;
    case "task.changed":
      return `Task ${text(data.kind)} ${text(data.state)}${failure(data.error)}`;
    case "console.opened":
      return `Console opened by ${text(data.user)} (${data.mode === "ro" ? "watching" : "may type"})`;
    case "console.closed":
      return `Console of ${text(data.user)} closed${data.reason ? `: ${text(data.reason)}` : ""}`;
    case "session.started":
      return `${text(data.principal)} logged in`;
    case "session.ended":
      return `Login session of ${text(data.principal)} ended`;
    case "auth.refused":
      return `Refused: ${text(data.code)}, ${text(data.method)} ${text(data.path)} from ${text(data.address) || "unknown"}`;
    case "host.started":
      return `vmctld ${text(data.version)} started; ${text(data.adopted)} running VMs found`;
    case "host.kernelLost":
      return `No notifications from the kernel: ${text(data.detail)}`;
    case "host.kernelBack":
      return "Notifications from the kernel are back";
    default:
      return event.kind;
  }
}

const fields = (data: unknown): Record<string, unknown> =>
  typeof data === "object" && data !== null ? (data as Record<string, unknown>) : {};

const text = (value: unknown): string =>
  typeof value === "string" || typeof value === "number" ? String(value).slice(0, 200) : "";

const failure = (error: unknown) => {
  const { code, detail } = fields(error);
  return code ? `: ${text(detail)} [${text(code)}]` : "";
};
