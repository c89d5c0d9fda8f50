// SPDX-License-Identifier: Apache-2.0
import { type APIRequestContext, expect, test as base } from "@playwright/test";
import { login } from "../steps";

/** Pulls a lever of the stub: see steer in server.mjs. */
export type Pull = (what: string, body?: unknown) => Promise<void>;

const puller =
  (request: APIRequestContext): Pull =>
  async (what, body = {}) => {
    const answer = await request.post(`/stub/${what}`, { data: body });
    expect(answer.ok(), `${what}: ${answer.status()}`).toBe(true);
  };

/**
 * Each test begins with an empty world, and fails on an error of the page or
 * of its policy that it did not expect.
 */
export const test = base.extend<{ pull: Pull; enter: () => Promise<void>; faults: string[] }>({
  pull: async ({ request }, use) => {
    const pull = puller(request);
    await pull("reset");
    await use(pull);
  },
  faults: [
    async ({ page }, use) => {
      const faults: string[] = [];
      page.on("pageerror", (error) => faults.push(error.message));
      page.on("console", (line) => {
        if (/Content Security Policy|Warning:|React/.test(line.text())) faults.push(line.text());
      });
      await use(faults);
      expect(faults).toEqual([]);
    },
    { auto: true },
  ],
  enter: async ({ page }, use) => {
    await use(async () => {
      await page.goto("/ui/");
      await login(page, "admin", "admin-password");
    });
  },
});

export { expect };
