// SPDX-License-Identifier: Apache-2.0
import { randomUUID } from "node:crypto";
import { problem, readJSON, sendJSON } from "./http.mjs";

/** Auth is one account, admin / admin-password, and its sessions. */
export class Auth {
  #sessions = new Map();

  clear() {
    this.#sessions.clear();
  }

  session(req) {
    const cookie = /(?:^|; )vmctl=([^;]*)/.exec(req.headers.cookie ?? "");
    return this.#sessions.get(cookie?.[1]);
  }

  async serve(url, req, res) {
    switch (`${req.method} ${url.pathname}`) {
      case "POST /auth/v1/login":
        return this.#login(await readJSON(req), res);
      case "POST /auth/v1/logout":
        this.#sessions.delete(this.session(req)?.id);
        return res.writeHead(204, { "Set-Cookie": "vmctl=; Max-Age=0; Path=/" }).end();
      case "GET /auth/v1/session": {
        const session = this.session(req);
        return session ? sendJSON(res, 200, session) : problem(res, 401, "unauthenticated", "nobody is logged in");
      }
      default:
        return problem(res, 404, "notFound", "no such path");
    }
  }

  #login({ user, password }, res) {
    if (password === "too-often") {
      res.setHeader("Retry-After", "12");
      return problem(res, 429, "limitExceeded", "too many wrong passwords");
    }
    if (user !== "admin" || password !== "admin-password") {
      return problem(res, 401, "unauthenticated", "wrong user or password");
    }
    const now = new Date().toISOString();
    const session = {
      id: randomUUID(), user, principal: `local:${user}`, groups: [], address: "127.0.0.1",
      createdAt: now, seenAt: now, expiresAt: new Date(Date.now() + 8 * 3600e3).toISOString(), current: true,
    };
    this.#sessions.set(session.id, session);
    res.writeHead(204, { "Set-Cookie": `vmctl=${session.id}; HttpOnly; SameSite=Strict; Path=/` }).end();
  }
}
