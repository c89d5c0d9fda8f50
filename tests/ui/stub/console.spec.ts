// SPDX-License-Identifier: Apache-2.0
import { newScreen, openConsole, shell } from "../console";
import { expect, test } from "./lever";

const says = (page: Parameters<typeof newScreen>[0], text: string | RegExp) =>
  expect(async () => expect(await newScreen(page).text()).toMatch(text)).toPass({ timeout: 7000 });

test("works before power-on, through it and through a reset", async ({ page, pull, enter }) => {
  await pull("vm", { name: "web" });
  await enter();
  const screen = await openConsole(page, "web");
  await page.getByRole("button", { name: "Power on", exact: true }).click();
  await shell(page, screen);
  await page.locator(".xterm-screen").click();
  await page.keyboard.type("uname -a; echo $((6*7))\n");
  await expect(async () => expect(await screen.lines()).toContain("42")).toPass();
  await page.getByRole("button", { name: "Reset" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Reset" }).click();
  await says(page, /42[^]*Linux version[^]*#/);
});

test("a broken connection comes back without losing or repeating a line", async ({ page, pull, enter }) => {
  await pull("vm", { name: "web" });
  await enter();
  await openConsole(page, "web");
  await pull("console", { name: "web", print: "one\r\n" });
  await says(page, /one/);
  await pull("console", { name: "web", cut: true });
  await expect(page.getByText("The connection was lost.")).toBeVisible();
  await pull("console", { name: "web", print: "two\r\n" });
  await says(page, /^one\ntwo\n*$/);
  await expect(page.getByText("The connection was lost.")).toBeHidden();
});

test("a close that is final says why and offers to reconnect", async ({ page, pull, enter }) => {
  await pull("vm", { name: "web" });
  await enter();
  await openConsole(page, "web");
  await pull("console", { name: "web", close: { code: 5, text: "too many viewers" } });
  await expect(page.getByText("Too many others watch this console. (too many viewers)")).toBeVisible();
  await page.getByRole("button", { name: "Reconnect" }).click();
  await expect(page.getByText("Connected", { exact: true })).toBeVisible();
});

test("shows who types, and takes over", async ({ page, pull, enter }) => {
  await pull("vm", { name: "web" });
  await pull("console", { name: "web", other: true });
  await enter();
  await openConsole(page, "web");
  await expect(page.getByText("unix:1000 types.")).toBeVisible();
  await page.getByRole("button", { name: "Take over" }).click();
  await expect(page.getByText("You type. Also here: unix:1000.")).toBeVisible();
  await expect(page.getByRole("button", { name: "Take over" })).toBeHidden();
});

test("stays open while another tab is looked at", async ({ page, pull, enter }) => {
  await pull("vm", { name: "web" });
  await enter();
  await openConsole(page, "web");
  await page.getByRole("tab", { name: "Events" }).click();
  await pull("console", { name: "web", print: "meanwhile\r\n" });
  await page.getByRole("tab", { name: "Console" }).click();
  await says(page, /meanwhile/);
  await expect(page.getByRole("row").filter({ hasText: "Console opened" })).toHaveCount(0);
});

test("answers to questions in old output are not typed into the guest", async ({ page, pull, enter }) => {
  await pull("vm", { name: "web", status: { state: "running" } });
  await pull("console", { name: "web", print: "old\x1b[6n\x1b[c\r\n" });
  await enter();
  const screen = await openConsole(page, "web");
  await pull("console", { name: "web", print: "done\r\n" });
  await says(page, /done/);
  expect(await screen.text()).not.toMatch(/\[\d|R$|;/m);
});

test("keys that a browser keeps are in a menu, and selections can be copied", async ({ page, pull, enter, context }) => {
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  await pull("vm", { name: "web", status: { state: "running" } });
  await enter();
  await openConsole(page, "web");
  await pull("console", { name: "web", print: "hello\r\n# " });
  await says(page, /hello/);
  await page.evaluate(() => navigator.clipboard.writeText("pasted"));
  await page.getByRole("button", { name: "Paste" }).click();
  await says(page, /# pasted/);
  await page.getByRole("button", { name: "Keys" }).click();
  await page.getByRole("menuitem", { name: "Ctrl+D" }).click();
  await page.locator(".xterm-screen").dblclick({ position: { x: 12, y: 8 } });
  await page.getByRole("button", { name: "Copy" }).click();
  await expect(page.getByText("Copied.")).toBeVisible();
  expect(await page.evaluate(() => navigator.clipboard.readText())).toContain("hello");
});
