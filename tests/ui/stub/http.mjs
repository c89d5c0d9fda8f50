// SPDX-License-Identifier: Apache-2.0
import { randomUUID } from "node:crypto";
import { STATUS_CODES } from "node:http";

export function sendJSON(res, status, body, headers = {}) {
  res.writeHead(status, { "Content-Type": "application/json", "X-Request-Id": randomUUID(), ...headers });
  res.end(JSON.stringify(body));
}

export function problem(res, status, code, detail, errors) {
  const requestId = randomUUID();
  res.writeHead(status, { "Content-Type": "application/problem+json", "X-Request-Id": requestId });
  const body = { type: "about:blank", title: STATUS_CODES[status], status, detail, code, requestId };
  res.end(JSON.stringify({ ...body, ...(errors && { errors }) }));
}

export async function readJSON(req) {
  const parts = [];
  for await (const part of req) parts.push(part);
  const text = Buffer.concat(parts).toString();
  return text ? JSON.parse(text) : {};
}
