// SPDX-License-Identifier: Apache-2.0
// The list follows the world, in good times and bad.
import { login, powerOff, row, stateOf } from "../steps";
import { expect, test } from "./lever";

test("power on and off, seen without asking again", async ({ page, pull, enter }) => {
  await pull("vm", { name: "web" });
  await enter();
  await expect(stateOf(row(page, "web"))).toHaveText("off");
  await page.getByRole("button", { name: "Power on web", exact: true }).click();
  await expect(stateOf(row(page, "web"))).toHaveText("running");
  await powerOff(page, "web");
  await expect(stateOf(row(page, "web"))).toHaveText("off");
  await page.getByRole("button", { name: "Recent tasks" }).click();
  await expect(page.getByRole("table", { name: "Recent tasks" })).toContainText("Power off");
});

test("a VM that is saved says so, and goes on from there", async ({ page, pull, enter }) => {
  await pull("vm", { name: "web", status: { state: "running" } });
  await enter();
  await page.getByRole("link", { name: "web", exact: true }).click();
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await expect(page.getByText("48 MiB on the host")).toBeVisible();
  await page.getByRole("button", { name: "Power off", exact: true }).click();
  await expect(page.getByRole("dialog")).toContainText("it boots anew the next time");
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.getByRole("button", { name: "Power on", exact: true }).click();
  await expect(page.getByText("48 MiB on the host")).toBeHidden();
});

test("a disk is snapshotted, and snapshots above another one are merged", async ({ page, pull, enter }) => {
  await pull("vm", { name: "web", status: { state: "running" }, spec: { disks: [{ path: "tools.img", readOnly: true }, { path: "web.img" }] } });
  await enter();
  await page.getByRole("link", { name: "web", exact: true }).click();
  const snapshot = page.getByRole("button", { name: /^Snapshot disk/ });
  const merge = page.getByRole("button", { name: "Merge disk 1" });
  await expect(snapshot).toHaveCount(1);
  await snapshot.click();
  await expect(page.getByText(/^web\.img.*a snapshot/)).toBeVisible();
  await merge.hover();
  await expect(page.getByRole("tooltip")).toContainText("above another one");
  await snapshot.click();
  await expect(page.getByText(/^web\.img.*2 snapshots/)).toBeVisible();
  await merge.click();
  await expect(page.getByRole("dialog", { name: "Merge disk 1 of web?" })).toContainText("is forgotten");
  await page.getByRole("dialog").getByRole("button", { name: "Merge", exact: true }).click();
  await expect(page.getByText(/^web\.img.*a snapshot/)).toBeVisible();
  await expect(page.getByText("web.img", { exact: true })).toBeVisible();
});

test("disks and network cards come and go while the guest runs", async ({ page, pull, enter }) => {
  const snapshot = { path: "o", format: "overlay", own: true, backing: [{ path: "kept.img" }] };
  await pull("vm", { name: "web", status: { state: "running" }, spec: { disks: [snapshot] } });
  await enter();
  await page.getByRole("link", { name: "web", exact: true }).click();
  const dialog = page.getByRole("dialog");
  await page.getByRole("button", { name: "Attach a disk" }).click();
  await dialog.getByRole("textbox", { name: "Image" }).fill("spare.img,rw");
  await expect(dialog).toContainText("“rw” is neither");
  await expect(dialog.getByRole("button", { name: "Attach", exact: true })).toBeDisabled();
  await dialog.getByRole("textbox", { name: "Image" }).fill("spare.img,serial=late");
  await expect(dialog.getByLabel("As a vmctl line")).toHaveText("vmctl vm attach-disk web spare.img,serial=late");
  await page.keyboard.press("Enter");
  await expect(page.getByText(/^spare\.img, serial number late/)).toBeVisible();
  await expect(dialog).toBeHidden();
  await page.getByRole("button", { name: "Attach a card" }).click();
  await pull("fail", { error: { status: 422, code: "networkMissing", detail: "there is no bridge br7" } });
  await dialog.getByRole("textbox", { name: "Bridge" }).fill("br7");
  await dialog.getByRole("button", { name: "Attach", exact: true }).click();
  await expect(dialog).toContainText("There is no bridge br7");
  await dialog.getByRole("textbox", { name: "Bridge" }).fill("br0");
  await dialog.getByRole("button", { name: "Attach", exact: true }).click();
  await expect(page.getByText(/^br0, address 52:54:00:00:00:77/)).toBeVisible();
  await page.getByRole("button", { name: "Detach disk 0, kept.img" }).hover();
  await expect(page.getByRole("tooltip")).toContainText("has snapshots");
  await page.getByRole("button", { name: "Detach disk 1, spare.img" }).click();
  await expect(dialog).toContainText("The file stays.");
  await dialog.getByRole("button", { name: "Detach", exact: true }).click();
  await expect(page.getByText(/^spare\.img, serial number late/)).toBeHidden();
  await page.getByRole("button", { name: "Detach network card 0, br0" }).click();
  await dialog.getByRole("button", { name: "Detach", exact: true }).click();
  await expect(page.getByText(/^br0, address/)).toBeHidden();
});

test("a button that is off says why, to the keyboard too", async ({ page, pull, enter }) => {
  await pull("vm", { name: "web" });
  await enter();
  const off = page.getByRole("button", { name: "Power off web", exact: true });
  await expect(off).toHaveAttribute("aria-disabled", "true");
  await off.focus();
  await expect(page.getByRole("tooltip")).toHaveText("Only a VM that is starting, running or paused can be powered off; web is off.");
});

test("a role that is too low is named", async ({ page, pull, enter }) => {
  await pull("vm", { name: "web" });
  await pull("roles", { roles: ["viewer"] });
  await enter();
  await page.getByRole("button", { name: "Create VM" }).hover();
  await expect(page.getByRole("tooltip")).toContainText("role admin");
  await page.getByRole("button", { name: "Power on web", exact: true }).hover();
  await expect(page.getByRole("tooltip").last()).toContainText("role operator");
});

test("what happened while the stream was down is there when it is back", async ({ page, pull, enter }) => {
  await pull("vm", { name: "web", status: { state: "running" } });
  await enter();
  await expect(stateOf(row(page, "web"))).toHaveText("running");
  await pull("away", { away: true });
  await expect(page.getByText("Not live")).toBeVisible();
  await pull("stop", { name: "web", reason: "panic", detail: "pvpanic" });
  await pull("away", { away: false });
  await expect(page.getByText("Live", { exact: true })).toBeVisible();
  await expect(stateOf(row(page, "web"))).toHaveText("off");
  await expect(row(page, "web")).toContainText("the guest’s kernel panicked");
});

test("a journal that does not reach back makes it list again", async ({ page, pull, enter }) => {
  await enter();
  await expect(page.getByText("No virtual machines yet")).toBeVisible();
  await pull("away", { away: true });
  await expect(page.getByText("Not live")).toBeVisible();
  await pull("vm", { name: "late" });
  await pull("forget");
  await pull("away", { away: false });
  await expect(row(page, "late")).toBeVisible();
});

test("a page that is loaded while the daemon is away recovers by itself", async ({ page, pull, enter }) => {
  await pull("vm", { name: "web" });
  await pull("away", { away: true });
  await enter();
  await expect(page.getByText("Could not load the VMs")).toBeVisible();
  await expect(page.getByText("unavailable")).toBeVisible();
  await pull("away", { away: false });
  await expect(row(page, "web")).toBeVisible();
});

test("a session that ends mid-use asks for a login and comes back to the same place", async ({ page, pull, enter }) => {
  await pull("vm", { name: "web" });
  await enter();
  await page.getByRole("link", { name: "web", exact: true }).click();
  await page.getByRole("tab", { name: "Events" }).click();
  await pull("session");
  await expect(page.getByText("Your session ended")).toBeVisible();
  await login(page, "admin", "admin-password");
  await expect(page.getByRole("heading", { name: "web", exact: true })).toBeVisible();
  await expect(page.getByRole("tab", { name: "Events" })).toHaveAttribute("aria-selected", "true");
});

test("a wrong password is told so, and too many of them when to try again", async ({ page, pull }) => {
  await pull("reset");
  await page.goto("/ui/");
  for (const [password, text] of [["wrong", "Wrong user or password"], ["too-often", "Try again in 12 s"]] as const) {
    await page.getByRole("textbox", { name: "User" }).fill("admin");
    await page.getByRole("textbox", { name: "Password" }).fill(password);
    await page.getByRole("button", { name: "Log in", exact: true }).click();
    await expect(page.getByText(text)).toBeVisible();
  }
});

test("all pages of a long list come, and one event draws one row anew", async ({ page, pull, enter }) => {
  for (let i = 0; i < 23; i++) await pull("vm", { name: `vm-${String(i).padStart(2, "0")}` });
  await enter();
  await expect(page.getByText("23 in all, 0 running")).toBeVisible();
  // Whatever is drawn anew changes nodes in its row.
  await page.evaluate(() => {
    const changed = new Set<string>();
    Object.assign(window, { changed });
    new MutationObserver((list) => {
      for (const { target } of list) {
        const row = (target instanceof Element ? target : target.parentElement)?.closest("tr");
        if (row) changed.add(row.querySelector("a")?.textContent ?? "?");
      }
    }).observe(document.querySelector("table")!, { subtree: true, childList: true, attributes: true, characterData: true });
  });
  await page.getByRole("button", { name: "Power on vm-07", exact: true }).click();
  await expect(stateOf(row(page, "vm-07"))).toHaveText("running");
  expect(await page.evaluate(() => [...(window as unknown as { changed: Set<string> }).changed])).toEqual(["vm-07"]);
});

test("nothing but the theme is kept in the browser", async ({ page, pull, enter }) => {
  await pull("vm", { name: "web" });
  await enter();
  await page.getByRole("button", { name: "Dark colours" }).click();
  await expect(page.locator("html")).toHaveClass(/pf-v6-theme-dark/);
  await page.reload();
  await expect(page.locator("html")).toHaveClass(/pf-v6-theme-dark/);
  expect(await page.evaluate(() => [{ ...localStorage }, { ...sessionStorage }])).toEqual([{ "vmctl.theme": "dark" }, {}]);
});
