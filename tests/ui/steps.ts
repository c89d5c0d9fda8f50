// SPDX-License-Identifier: Apache-2.0
// What a person does on the pages, by what they see and not by how it is built.
import { expect, type Locator, type Page } from "@playwright/test";

export async function login(page: Page, user: string, password: string): Promise<void> {
  await page.getByRole("textbox", { name: "User" }).fill(user);
  await page.getByRole("textbox", { name: "Password" }).fill(password);
  await page.getByRole("button", { name: "Log in", exact: true }).click();
  await expect(page.getByRole("button", { name: `Logged in as ${user}` })).toBeVisible();
}

/** The row of a VM in the list. */
export const row = (page: Page, vm: string): Locator =>
  page
    .getByRole("table", { name: "Virtual machines" })
    .getByRole("row")
    .filter({ has: page.getByRole("link", { name: vm, exact: true }) });

/** The label with the state of a VM, in its row or on its page. */
export const stateOf = (within: Locator): Locator => within.locator("[data-state]").first();

export async function powerOff(page: Page, vm: string): Promise<void> {
  await page.getByRole("button", { name: `Power off ${vm}`, exact: true }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Power off" }).click();
}
