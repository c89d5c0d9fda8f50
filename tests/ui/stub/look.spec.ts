// SPDX-License-Identifier: Apache-2.0
// Every page, wide and narrow, dark and light: axe finds nothing, nothing is
// wider than the screen, and a picture is left to be looked at.
import AxeBuilder from "@axe-core/playwright";
import type { Page } from "@playwright/test";
import { screenshots } from "../browser";
import { openConsole } from "../console";
import { expect, type Pull, test } from "./lever";

const sizes = { wide: { width: 1280, height: 800 }, phone: { width: 390, height: 844 } };

for (const [size, viewport] of Object.entries(sizes)) {
  for (const colors of ["light", "dark"] as const) {
    test.describe(`${size}, ${colors}`, () => {
      test.use({ viewport, colorScheme: colors });

      test("every page", async ({ page, pull, enter }) => {
        test.setTimeout(120_000);
        const look = (name: string) => inspect(page, `${size}-${colors}-${name}`);
        await pull("reset");
        await page.goto("/ui/");
        await look("login");
        await enter();
        await expect(page.getByText("No virtual machines yet")).toBeVisible();
        await look("empty");
        await furnish(pull);
        await expect(page.getByText("5 in all, 2 running")).toBeVisible();
        await look("list");
        await dialogs(page, look);
        await pages(page, look, pull);
      });
    });
  }
}

type Look = (name: string) => Promise<void>;

const devices = {
  disks: [
    {
      path: "o2",
      format: "overlay",
      own: true,
      backing: [{ path: "o1", format: "overlay", own: true }, { path: "web.img" }],
      limit: { bytesPerSecond: 50 * 2 ** 20, opsPerSecond: 1000, burstMillis: 200 },
    },
    { path: "tools.qcow2", readOnly: true, format: "qcow2", serial: "tools" },
  ],
  nics: [
    { bridge: "br0", mac: "52:54:00:12:34:56", receiveLimit: { bytesPerSecond: 10 * 2 ** 20 }, sendLimit: { opsPerSecond: 5000 } },
    { bridge: "br1", mac: "52:54:00:12:34:57", linkDown: true },
  ],
};

async function furnish(pull: Pull): Promise<void> {
  await pull("vm", { name: "web", spec: devices, status: { state: "running" } });
  await pull("vm", { name: "db", spec: { vcpus: 4, memoryBytes: 3 * 2 ** 30 }, status: { state: "running" } });
  await pull("vm", { name: "batch" });
  await pull("vm", { name: "crashed", status: { state: "running" } });
  await pull("stop", { name: "crashed", reason: "monitorGone", detail: "killed by signal 9" });
  await pull("vm", { name: "a-vm-with-a-name-that-is-exactly-as-long-as-a-name-may-be-63-x" });
  await pull("console", { name: "web", print: "[    0.000000] Linux version 6.12.1\r\n[    0.812345] Run /init\r\n# " });
}

async function dialogs(page: Page, look: Look): Promise<void> {
  await page.getByRole("button", { name: "Create VM" }).click();
  await page.getByRole("textbox", { name: "Name", exact: true }).fill("Bad name");
  await look("create-wrong");
  await page.getByRole("textbox", { name: "Name", exact: true }).fill("batch-2");
  await page.getByRole("textbox", { name: "Kernel", exact: true }).fill("missing");
  await page.getByRole("textbox", { name: "Kernel", exact: true }).press("Enter");
  await expect(page.getByText("bootFileMissing")).toBeVisible();
  await look("create-refused");
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.getByRole("button", { name: "Delete batch", exact: true }).click();
  await look("delete");
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.getByRole("button", { name: "Power on batch", exact: true }).click();
  await page.getByRole("button", { name: "Recent tasks" }).click();
  await expect(page.getByRole("table", { name: "Recent tasks" })).toContainText("Done");
  await look("drawer");
  await page.getByRole("button", { name: "Recent tasks" }).click();
}

async function pages(page: Page, look: Look, pull: Pull): Promise<void> {
  await page.getByRole("link", { name: "web", exact: true }).click();
  await expect(page.getByRole("heading", { name: "Configuration" })).toBeVisible();
  await look("summary");
  await plugs(page, look);
  await changes(page, look, pull);
  await openConsole(page, "web");
  await look("console");
  await page.getByRole("tab", { name: "Events" }).click();
  await look("vm-events");
  await page.getByRole("tab", { name: "Tasks" }).click();
  await look("vm-tasks");
  await page.goto("/ui/events");
  await expect(page.getByRole("table", { name: "Events" })).toBeVisible();
  await look("events");
  await page.goto("/ui/tasks");
  await expect(page.getByRole("table", { name: "Tasks" })).toBeVisible();
  await look("tasks");
  await page.goto("/ui/vms/nobody");
  await expect(page.getByText("There is no such VM")).toBeVisible();
  await look("no-vm");
}

async function plugs(page: Page, look: Look): Promise<void> {
  await page.getByRole("button", { name: "Attach a disk" }).click();
  const image = page.getByRole("textbox", { name: "Image" });
  await image.fill("spare.img,rw");
  await look("attach-wrong");
  await image.fill("spare.img,bytes=50M");
  await look("attach");
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.getByRole("button", { name: "Detach disk 1, tools.qcow2" }).click();
  await look("detach");
  await page.getByRole("button", { name: "Cancel" }).click();
}

/** Of a VM that runs: most fields are off. */
async function changes(page: Page, look: Look, pull: Pull): Promise<void> {
  await page.getByRole("button", { name: "Change", exact: true }).click();
  const disks = page.getByRole("textbox", { name: "Disks" });
  await expect(disks).toBeVisible();
  await look("change");
  await disks.fill("web.img");
  await page.getByText("Only the limits of disks can change").scrollIntoViewIfNeeded();
  await look("change-wrong");
  await disks.fill("web.img,ops=500\ntools.qcow2,ro,serial=tools,format=qcow2");
  await page.getByRole("dialog").getByLabel("As a curl line").scrollIntoViewIfNeeded();
  await look("change-lines");
  await pull("change", { name: "web", spec: { onCrash: "restart" } });
  await page.getByText("web was changed meanwhile").scrollIntoViewIfNeeded();
  await look("change-late");
  await page.getByRole("button", { name: "Cancel" }).click();
}

async function inspect(page: Page, name: string): Promise<void> {
  // Tooltips fade; they lie outside of the landmarks, as the library has it.
  await page.mouse.move(0, 0);
  await expect(page.getByRole("tooltip")).toHaveCount(0);
  await page.evaluate(() => Promise.all(document.getAnimations().map((a) => a.finished.catch(() => undefined))));
  await page.screenshot({ path: `${screenshots}${name}.png` });
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  expect.soft(wide, `${name} is wider than the screen`).toBeLessThanOrEqual(0);
  // Legacy is what looks at one page and its own frames: ours has none, and the
  // other mode loads axe into a second page each time.
  const found = await new AxeBuilder({ page }).setLegacyMode(true).analyze();
  const list = found.violations.map((v) => `${v.id}: ${v.help}: ${v.nodes.map((n) => n.target.join(" ")).slice(0, 3).join(" | ")}`);
  expect.soft(list, name).toEqual([]);
}
