// SPDX-License-Identifier: Apache-2.0
// Against the whole chain, which somebody else started: see chain.spec.ts.
import { defineConfig } from "@playwright/test";
import { browser, report } from "./browser";

export default defineConfig({
  testMatch: "chain.spec.ts",
  // A guest under emulation takes its time.
  timeout: 240_000,
  expect: { timeout: 90_000 },
  workers: 1,
  reporter: report("ui-chain"),
  outputDir: "../../build/ui-results/chain",
  use: { ...browser, baseURL: process.env.VMCTL_URL, ignoreHTTPSErrors: true },
});
