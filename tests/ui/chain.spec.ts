// SPDX-License-Identifier: Apache-2.0
// A person's first minutes with vmctl, against a chain that runs:
//
//   VMCTL_URL=https://… VMCTL_USER=… VMCTL_PASSWORD=… VMCTL_VM=… npm test
//
// The VM exists; its guest has a shell on the serial console. Pictures are
// left in build/ui-screenshots.
import { expect, test } from "@playwright/test";
import { screenshots } from "./browser";
import { openConsole, shell } from "./console";
import { login, powerOff, row, stateOf } from "./steps";

const wanted = (name: string): string => {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: the chain is started by somebody else, see chain.spec.ts`);
  return value;
};

test("log in, power on, use the console, power off", async ({ page }) => {
  const vm = wanted("VMCTL_VM");
  wanted("VMCTL_URL");
  const faults: string[] = [];
  page.on("pageerror", (error) => faults.push(error.message));
  page.on("console", (line) => /Content Security Policy/.test(line.text()) && faults.push(line.text()));
  const picture = (name: string) => page.screenshot({ path: `${screenshots}chain-${name}.png` });

  await test.step("log in", async () => {
    await page.goto("/ui/");
    await expect(page.getByRole("heading", { name: "Log in to vmctl" })).toBeVisible();
    await picture("1-login");
    await login(page, wanted("VMCTL_USER"), wanted("VMCTL_PASSWORD"));
  });

  await test.step("see the VM", async () => {
    await expect(row(page, vm)).toBeVisible();
    await expect(page.getByText("Live", { exact: true })).toBeVisible();
    await picture("2-list");
  });

  await test.step("power it on", async () => {
    if ((await stateOf(row(page, vm)).innerText()) !== "off") {
      await powerOff(page, vm);
      await expect(stateOf(row(page, vm))).toHaveText("off");
    }
    await page.getByRole("button", { name: `Power on ${vm}`, exact: true }).click();
    await expect(stateOf(row(page, vm))).toHaveText("running");
    await picture("3-running");
  });

  await test.step("type into its console", async () => {
    const console = await openConsole(page, vm);
    await shell(page, console);
    await page.keyboard.type("uname -a; echo $((6*7))");
    await page.keyboard.press("Enter");
    // The typed line holds no 42: it can only be the guest's answer.
    await expect(async () => expect(await console.lines()).toContain("42")).toPass();
    expect(await console.text()).toMatch(/^Linux /m);
    await picture("4-console");
  });

  await test.step("power it off", async () => {
    await page.getByRole("button", { name: "Power off", exact: true }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Power off" }).click();
    await expect(stateOf(page.locator("main"))).toHaveText("off");
    await page.getByRole("tab", { name: "Events" }).click();
    await expect(page.getByRole("table", { name: "Events" })).toContainText("Stopped: stopped by an operator");
    await picture("5-off");
  });

  await test.step("log out", async () => {
    await page.getByRole("button", { name: /^Logged in as/ }).click();
    await page.getByRole("menuitem", { name: "Log out" }).click();
    await expect(page.getByRole("heading", { name: "Log in to vmctl" })).toBeVisible();
  });
  expect(faults).toEqual([]);
});
