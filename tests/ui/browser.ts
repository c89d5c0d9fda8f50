// SPDX-License-Identifier: Apache-2.0
// Debian's Chromium, without what draws windows, and where reports and pictures go.
import { fileURLToPath } from "node:url";
import type { PlaywrightTestConfig, ReporterDescription } from "@playwright/test";

const build = fileURLToPath(new URL("../../build/", import.meta.url));

export const screenshots = `${build}ui-screenshots/`;

export const browser: PlaywrightTestConfig["use"] = {
  viewport: { width: 1280, height: 800 },
  trace: "off",
  launchOptions: {
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium-headless-shell",
    args: [
      // Root has no user namespaces for the sandbox in a container.
      "--no-sandbox",
      "--disable-gpu",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  },
};

/** A line per test, and what tools/tally reads. */
export const report = (name: string): ReporterDescription[] => [
  ["list"],
  ["json", { outputFile: `${build}test/${name}.json` }],
];
