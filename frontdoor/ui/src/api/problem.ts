// SPDX-License-Identifier: Apache-2.0
// What a request can fail with. Code decides by `code`, never by a text.
import type { Problem } from "./model";

/** The API's codes, and those that arise before it is reached. */
export type Code = Problem["code"] | "network" | "badAnswer";

/** ApiError is a problem document, or what stands for one when none came. */
export class ApiError extends Error {
  readonly code: Code;
  /** HTTP status; 0 when no answer came. */
  readonly status: number;
  readonly requestId: string;
  readonly fields: { location: string; message: string }[];
  /** Milliseconds that the server asked to wait, if it did. */
  readonly retryAfter: number | undefined;

  constructor(init: {
    code: Code;
    status: number;
    detail: string;
    requestId?: string;
    fields?: { location: string; message: string }[];
    retryAfter?: number | undefined;
  }) {
    super(init.detail);
    this.name = "ApiError";
    this.code = init.code;
    this.status = init.status;
    this.requestId = init.requestId ?? "";
    this.fields = init.fields ?? [];
    this.retryAfter = init.retryAfter;
  }

  /** Nobody is logged in any more, as opposed to a signature gone wrong. */
  get sessionOver(): boolean {
    return this.status === 401 && !this.code.startsWith("signature");
  }

  /** The same request may well succeed a little later. */
  get transient(): boolean {
    return this.code === "network" || [502, 503, 504].includes(this.status);
  }
}

/** problemFrom reads an error response whose body was parsed already, if it was JSON. */
export function problemFrom(response: Response, body: unknown): ApiError {
  const retryAfter = seconds(response.headers.get("Retry-After"));
  const header = response.headers.get("X-Request-Id") ?? "";
  if (isProblem(body)) {
    return new ApiError({
      code: body.code,
      status: response.status,
      detail: body.detail || body.title || `HTTP status ${response.status}`,
      requestId: body.requestId || header,
      fields: Array.isArray(body.errors) ? body.errors : [],
      retryAfter,
    });
  }
  return new ApiError({
    code: response.status === 401 ? "unauthenticated" : "badAnswer",
    status: response.status,
    detail: `The server answered with HTTP status ${response.status} and no explanation`,
    requestId: header,
    retryAfter,
  });
}

/** toApiError makes an ApiError of whatever was thrown. */
export function toApiError(thrown: unknown): ApiError {
  if (thrown instanceof ApiError) return thrown;
  return new ApiError({
    code: "network",
    status: 0,
    detail: "The server cannot be reached",
  });
}

/** advice says what a person can do about an error; empty when the detail says all. */
export function advice(error: ApiError): string {
  switch (error.code) {
    case "network":
      return "Check the connection; the page tries again by itself.";
    case "unavailable":
      return "It is restarting or busy; the page tries again by itself.";
    case "forbidden":
      return "Ask an administrator for the role that this needs.";
    case "stateConflict":
    case "conflict":
    case "preconditionFailed":
      return "Something else changed first; look at the state now and try again.";
    case "exists":
      return "Choose another name.";
    case "bootFileMissing":
      return "Put the file into the boot folder of the host (default /var/lib/vmctl/boot), or correct the path.";
    case "bootFileInvalid":
      return "The kernel must be a bzImage, as distributions ship it as vmlinuz, or an ELF with a PVH entry, such as vmlinux.";
    case "diskMissing":
      return "Put the file into the folder of disks of the host (default /var/lib/vmctl/disks), or correct the path.";
    case "diskInvalid":
      return "A disk is a raw image of whole sectors of 512 bytes, or a qcow2 image to read.";
    case "diskFormatInvalid":
      return "Give the format that the file has (qemu-img info), or repair the image (qemu-img check).";
    case "diskFormatRefused":
      return "Make an image without encryption and other files of qemu-img convert, or repair it (qemu-img check).";
    case "diskBackingInvalid":
      return "Give every backing file of the image, in order, with its format (qemu-img info --backing-chain).";
    case "diskInUse":
      return "Power the other VM off, or let both read the disk only.";
    case "networkMissing":
      return "Make the bridge on the host, or correct its name.";
    case "networkInvalid":
      return "VMs may be on the bridges that vmctld was started with (--bridge).";
    case "initrdTooLarge":
      return "Give the VM more memory.";
    case "limitExceeded":
      return "Wait until other work has ended, or remove what is not needed.";
    case "monitorFailed":
    case "kernelFailed":
      return "The log of vmctld has more under this request id.";
    case "internal":
    case "badAnswer":
      return "This is a defect; the log has more under this request id.";
    default:
      return "";
  }
}

function isProblem(body: unknown): body is Problem {
  return typeof body === "object" && body !== null && typeof (body as Problem).code === "string";
}

function seconds(header: string | null): number | undefined {
  const n = Number(header);
  return header && Number.isFinite(n) && n >= 0 ? Math.min(n, 300) * 1000 : undefined;
}
