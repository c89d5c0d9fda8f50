// SPDX-License-Identifier: Apache-2.0
// The terminal on the page, read as a person reads it.
import { expect, type Page } from "@playwright/test";

export interface Screen {
  /** The lines that are seen, without the empty ones at the end. */
  lines(): Promise<string[]>;
  text(): Promise<string>;
}

/** openConsole goes from a VM's row or page to its console, and waits for it to be connected. */
export async function openConsole(page: Page, vm: string): Promise<Screen> {
  const link = page.getByRole("link", { name: `Console of ${vm}`, exact: true });
  await link.or(page.getByRole("tab", { name: "Console" })).click();
  await expect(page.getByText("Connected", { exact: true })).toBeVisible();
  const screen = newScreen(page);
  await page.locator(".xterm-screen").click();
  return screen;
}

export function newScreen(page: Page): Screen {
  const lines = async () => {
    const rows = await page.locator(".xterm-rows > div").allTextContents();
    return rows.map((row) => row.replaceAll("\u00a0", " ").trimEnd());
  };
  return { lines, text: async () => (await lines()).join("\n") };
}

/** shell waits until a shell asks for a command, pressing Enter now and then. */
export async function shell(page: Page, screen: Screen): Promise<void> {
  await expect(async () => {
    const last = (await screen.lines()).filter(Boolean).at(-1) ?? "";
    if (!/[#$]$/.test(last)) await page.keyboard.press("Enter");
    expect(last).toMatch(/[#$]$/);
  }).toPass({ intervals: [1000], timeout: 180_000 });
}
