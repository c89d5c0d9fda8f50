// SPDX-License-Identifier: Apache-2.0
// A front door, daemon and guest in one process, for tests of the interface
// and for `npm run dev` in frontdoor/ui: the same paths, bodies and frames, no
// kernel. State is in memory. A test steers it by POST /stub/{what}.
//
//   node stub/server.mjs [PORT]
import { createServer } from "node:http";
import { pathToFileURL } from "node:url";
import { Auth } from "./auth.mjs";
import { Consoles } from "./console.mjs";
import { World } from "./world.mjs";
import { problem, readJSON, sendJSON } from "./http.mjs";
import { servePage } from "./page.mjs";

export function newStub() {
  const world = new World();
  const auth = new Auth();
  const consoles = new Consoles(world);
  const server = createServer((req, res) => {
    route(world, auth, consoles, req, res).catch((error) => problem(res, 500, "internal", String(error)));
  });
  server.on("upgrade", (req, socket, head) => consoles.upgrade(auth, req, socket, head));
  return server;
}

async function route(world, auth, consoles, req, res) {
  const url = new URL(req.url, "http://stub");
  if (url.pathname === "/") return res.writeHead(302, { Location: "/ui/" }).end();
  if (url.pathname.startsWith("/ui/")) return servePage(url.pathname, req, res);
  if (url.pathname.startsWith("/stub/")) return steer(world, auth, consoles, url, req, res);
  if (url.pathname.startsWith("/auth/v1/")) return auth.serve(url, req, res);
  if (!url.pathname.startsWith("/api/v1")) return problem(res, 404, "notFound", "no such path");
  if (!auth.session(req)) return problem(res, 401, "unauthenticated", "nobody is logged in");
  if (world.away) {
    res.setHeader("Retry-After", "1");
    return problem(res, 503, "unavailable", "vmctld is restarting");
  }
  return world.serve(url.pathname.slice("/api".length), url, req, res);
}

/** What tests do behind the interface's back. */
async function steer(world, auth, consoles, url, req, res) {
  const body = await readJSON(req);
  switch (url.pathname.slice("/stub/".length)) {
    case "reset":
      world.clear();
      auth.clear();
      consoles.clear();
      break;
    case "vm":
      world.create(body.name, body.spec ?? {}, body.status ?? {}, body.seed);
      break;
    case "change": { // somebody else changed a VM
      const vm = world.find(body.name);
      world.change(vm, body.to ?? vm.name, { ...vm.spec, ...body.spec }, body.silent);
      break;
    }
    case "stop": // the guest or the kernel ended a run
      world.stopped(world.find(body.name), body.reason, body.detail ?? "");
      break;
    case "away": // vmctld is gone, or back
      world.away = body.away;
      if (body.away) world.dropStreams();
      break;
    case "forget": // the journal does not reach back
      world.forget();
      break;
    case "drop":
      world.dropStreams();
      break;
    case "roles":
      world.roles = body.roles;
      break;
    case "session": // ends all of them
      auth.clear();
      world.dropStreams();
      consoles.closeAll(6, "revoked");
      break;
    case "console":
      consoles.steer(world.find(body.name), body);
      break;
    case "fail":
      world.failNext = body.error;
      break;
    default:
      return problem(res, 404, "notFound", "no such lever");
  }
  sendJSON(res, 200, {});
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const port = Number(process.argv[2] ?? 5180);
  newStub().listen(port, "127.0.0.1", () => console.log(`http://127.0.0.1:${port}/ui/  admin / admin-password`));
}
