// SPDX-License-Identifier: Apache-2.0
// Serves the built interface as the front door does, policy included.
import { readFile } from "node:fs/promises";
import { extname } from "node:path";

const dist = new URL("../../../frontdoor/ui/dist/", import.meta.url);
const types = {
  ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".woff2": "font/woff2",
};

/** That of frontdoor/edge. */
const policy =
  "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; " +
  "font-src 'self'; connect-src 'self'; object-src 'none'; frame-src 'none'; worker-src 'self'; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

export async function servePage(path, req, res) {
  const name = path.slice("/ui/".length);
  const file = /^(assets\/)?[A-Za-z0-9_.-]+$/.test(name) && extname(name) ? name : "index.html";
  const headers = { "Content-Security-Policy": policy, "Content-Type": types[extname(file)] ?? "text/plain" };
  let body = await readFile(new URL(`${file}.gz`, dist)).catch(() => undefined);
  if (body && /\bgzip\b/.test(req.headers["accept-encoding"] ?? "")) headers["Content-Encoding"] = "gzip";
  else body = await readFile(new URL(file, dist)).catch(() => undefined);
  if (body) res.writeHead(200, headers).end(body);
  else res.writeHead(404).end();
}
