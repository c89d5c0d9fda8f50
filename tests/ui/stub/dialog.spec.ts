// SPDX-License-Identifier: Apache-2.0
import { row } from "../steps";
import { expect, test } from "./lever";

test("create checks while typing, shows the lines, and goes to the VM", async ({ page, pull, enter }) => {
  await pull("vm", { name: "web" });
  await enter();
  await page.getByRole("button", { name: "Create VM" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByRole("textbox", { name: "Name" }).fill("web");
  await expect(dialog.getByText("There is a VM with this name.")).toBeVisible();
  await dialog.getByRole("textbox", { name: "Name" }).fill("Web");
  await expect(dialog.getByText("Lower-case letters only.")).toBeVisible();
  await dialog.getByRole("textbox", { name: "Name" }).fill("web-2");
  await dialog.getByRole("textbox", { name: "vCPUs" }).fill("0");
  await expect(dialog.getByText("A whole number from 1 to 64.")).toBeVisible();
  await dialog.getByRole("textbox", { name: "vCPUs" }).fill("8");
  await expect(dialog.getByText("The host has 4 CPUs")).toBeVisible();
  await dialog.getByRole("textbox", { name: "vCPUs" }).fill("2");
  await dialog.getByRole("button", { name: "Create" }).click();
  await expect(dialog.getByText("A kernel or a disk is needed.")).toBeVisible();
  await expect(dialog.getByRole("textbox", { name: "Kernel command line" })).toBeDisabled();
  await dialog.getByRole("textbox", { name: "Disks" }).fill("debian.img");
  await expect(dialog.getByLabel("As a vmctl line")).toHaveText("vmctl vm create web-2 --vcpus 2 --memory 512M --disk debian.img");
  await dialog.getByRole("textbox", { name: "Kernel", exact: true }).fill("vmlinuz");
  await expect(dialog.getByLabel("As a vmctl line")).toContainText("vmctl vm create web-2 --vcpus 2 --memory 512M --kernel vmlinuz");
  await expect(dialog.getByLabel("As a curl line")).toContainText('"name":"web-2"');
  await dialog.getByRole("button", { name: "Create" }).click();
  await expect(page).toHaveURL(/\/ui\/vms\/web-2$/);
  await expect(page.getByRole("heading", { name: "web-2" })).toBeVisible();
});

test("a seed is typed or chosen, and only an admin sees it again", async ({ page, pull, enter }) => {
  await pull("reset");
  await enter();
  await page.getByRole("button", { name: "Create VM" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByRole("textbox", { name: "Name", exact: true }).fill("seeded");
  await dialog.getByRole("textbox", { name: "Disks" }).fill("debian.img");
  const user = dialog.getByRole("textbox", { name: "User data", exact: true });
  const [chooser] = await Promise.all([
    page.waitForEvent("filechooser"),
    dialog.getByRole("button", { name: "Choose file" }).first().click(),
  ]);
  await chooser.setFiles({ name: "big.yaml", mimeType: "text/yaml", buffer: Buffer.alloc(65537, "x") });
  await expect(dialog.getByText("That is no file of at most 64 KiB")).toBeVisible();
  await chooser.setFiles({ name: "web.yaml", mimeType: "text/yaml", buffer: Buffer.from("#cloud-config\npassword: hunter2\n") });
  await expect(user).toHaveValue("#cloud-config\npassword: hunter2\n");
  await expect(dialog.getByRole("textbox", { name: "File of the user data" })).toHaveValue("web.yaml");
  const network = dialog.getByRole("textbox", { name: "Network configuration", exact: true });
  await network.fill("x".repeat(65536));
  await expect(dialog.getByText("At most 64 KiB with the other text").first()).toBeVisible();
  await network.fill("version: 2\n");
  await expect(dialog.getByLabel("As a vmctl line")).toContainText("--disk debian.img --user-data user-data --network-config network-config");
  await dialog.getByRole("button", { name: "Create" }).click();
  await expect(page.getByText("user-data (32 bytes), network-config (11 bytes)")).toBeVisible();
  await expect(page.getByText("hunter2")).toBeHidden();
  await page.getByRole("button", { name: "Show what is in the seed" }).click();
  await expect(page.getByRole("dialog", { name: "Seed of seeded" })).toContainText("password: hunter2");
  await page.getByRole("dialog").getByText("Close", { exact: true }).click();
  await pull("roles", { roles: ["operator"] });
  await page.reload();
  await expect(page.getByText("user-data (32 bytes), network-config (11 bytes)")).toBeVisible();
  await expect(page.getByRole("button", { name: "Show what is in the seed" })).toBeHidden();
});

test("what the server finds wrong is shown in the dialog, with code and request", async ({ page, pull, enter }) => {
  await pull("reset");
  await enter();
  await page.getByRole("button", { name: "Create VM" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByRole("textbox", { name: "Name" }).fill("web");
  await dialog.getByRole("textbox", { name: "Kernel", exact: true }).fill("missing");
  await dialog.getByRole("textbox", { name: "Kernel", exact: true }).press("Enter");
  await expect(dialog.getByText("bootFileMissing")).toBeVisible();
  await expect(dialog.getByText("body.spec.boot.kernel")).toBeVisible();
  await expect(dialog.getByText(/request [0-9a-f-]{36}/)).toBeVisible();
  await expect(dialog.getByRole("textbox", { name: "Name" })).toHaveValue("web");
});

test("delete names what is lost, and asks", async ({ page, pull, enter }) => {
  await pull("vm", { name: "web" });
  await pull("vm", { name: "db" });
  await enter();
  await page.getByRole("button", { name: "Delete web", exact: true }).click();
  const dialog = page.getByRole("dialog", { name: "Delete web?" });
  await expect(dialog).toContainText("cannot be undone");
  await expect(dialog).toContainText("the log of its console");
  await dialog.getByRole("button", { name: "Cancel" }).click();
  await expect(row(page, "web")).toBeVisible();
  await page.getByRole("button", { name: "Delete web", exact: true }).click();
  await dialog.getByRole("button", { name: "Delete" }).click();
  await expect(row(page, "web")).toBeHidden();
  await expect(row(page, "db")).toBeVisible();
});

test("a refused power-on is explained", async ({ page, pull, enter }) => {
  await pull("vm", { name: "web" });
  await enter();
  await pull("fail", { error: { status: 503, code: "monitorFailed", detail: "vmx did not start" } });
  await page.getByRole("button", { name: "Power on web", exact: true }).click();
  await expect(page.getByRole("dialog")).toContainText("Vmx did not start.");
  await expect(page.getByRole("dialog")).toContainText("monitorFailed");
});

test("a VM that is deleted while it is looked at says so", async ({ page, pull, enter }) => {
  await pull("vm", { name: "web" });
  await enter();
  await page.getByRole("link", { name: "web", exact: true }).click();
  await page.getByRole("button", { name: "Delete" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await expect(page.getByText("web was deleted")).toBeVisible();
});
