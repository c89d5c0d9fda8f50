// SPDX-License-Identifier: Apache-2.0
// Against the stub: what needs no guest, on every page and in bad times.
import { defineConfig } from "@playwright/test";
import { browser, report } from "./browser";

// Two runs may stand side by side. The workers read this file too, and inherit what
// it sets.
process.env.STUB_PORT ??= String(20_000 + (process.pid % 12_000));
const port = process.env.STUB_PORT;

export default defineConfig({
  testMatch: "stub/*.spec.ts",
  timeout: 30_000,
  expect: { timeout: 7_000 },
  workers: 1,
  reporter: report("ui-stub"),
  outputDir: "../../build/ui-results/stub",
  use: { ...browser, baseURL: `http://127.0.0.1:${port}` },
  webServer: { command: `node stub/server.mjs ${port}`, url: `http://127.0.0.1:${port}/ui/`, reuseExistingServer: false },
});
