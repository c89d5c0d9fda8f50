// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from "vitest";
import { advice, problemFrom, toApiError } from "./problem";

describe("problemFrom", () => {
  it("takes code, detail, request and fields from a problem document", () => {
    const response = new Response(null, { status: 409, headers: { "X-Request-Id": "other" } });
    const error = problemFrom(response, {
      type: "about:blank",
      title: "Conflict",
      status: 409,
      detail: "web is running",
      code: "stateConflict",
      requestId: "r-1",
      errors: [{ location: "body.name", message: "taken" }],
    });
    expect(error.code).toBe("stateConflict");
    expect(error.message).toBe("web is running");
    expect(error.requestId).toBe("r-1");
    expect(error.fields).toEqual([{ location: "body.name", message: "taken" }]);
    expect(error.transient).toBe(false);
    expect(advice(error)).not.toBe("");
  });

  it("makes do with a body that is no problem document", () => {
    const headers = { "X-Request-Id": "r-2", "Retry-After": "2" };
    const error = problemFrom(new Response(null, { status: 502, headers }), "<html>");
    expect(error.code).toBe("badAnswer");
    expect(error.requestId).toBe("r-2");
    expect(error.retryAfter).toBe(2000);
    expect(error.transient).toBe(true);
  });

  it.each(["-1", "soon", "", "Wed, 21 Oct 2026 07:28:00 GMT"])("ignores Retry-After %j", (value) => {
    const response = new Response(null, { status: 503, headers: { "Retry-After": value } });
    expect(problemFrom(response, undefined).retryAfter).toBeUndefined();
  });

  it("tells an ended session from a broken signature", () => {
    const make = (code: string) => problemFrom(new Response(null, { status: 401 }), { code });
    expect(make("sessionUnknown").sessionOver).toBe(true);
    expect(make("unauthenticated").sessionOver).toBe(true);
    expect(make("signatureStale").sessionOver).toBe(false);
  });
});

describe("toApiError", () => {
  it("calls everything else a broken network, without its text", () => {
    const error = toApiError(new TypeError("Failed to fetch"));
    expect(error.code).toBe("network");
    expect(error.message).not.toContain("fetch");
    expect(error.transient).toBe(true);
  });
});
