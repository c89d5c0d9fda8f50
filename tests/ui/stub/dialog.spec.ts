// SPDX-License-Identifier: Apache-2.0
import type { Locator, Page } from "@playwright/test";
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
  await dialog.getByRole("combobox", { name: "Sockets to the host" }).selectOption("Sockets between guest and host");
  await dialog.getByRole("combobox", { name: "When it powers off" }).selectOption("Power on again");
  await expect(dialog.getByLabel("As a vmctl line")).toContainText("--vsock=auto --on-poweroff restart");
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
  await network.fill(`${"x".repeat(63)}\n`.repeat(1024));
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
  await page.getByRole("button", { name: "Delete", exact: true }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await expect(page.getByText("web was deleted")).toBeVisible();
});

const mac = "52:54:00:12:34:56";
const devices = {
  disks: [{ path: "web.img", limit: { bytesPerSecond: 50 * 2 ** 20, opsPerSecond: 1000 } }, { path: "tools.img", readOnly: true }],
  nics: [{ bridge: "br0", mac }, { bridge: "br1", mac: "52:54:00:12:34:57", sendLimit: { bytesPerSecond: 2 ** 30 } }],
};

async function openChange(page: Page, vm: string): Promise<Locator> {
  await page.goto(`/ui/vms/${vm}`);
  await page.getByRole("button", { name: "Change", exact: true }).click();
  const dialog = page.getByRole("dialog", { name: `Change ${vm}` });
  await expect(dialog.getByRole("textbox", { name: "Name", exact: true })).toHaveValue(vm);
  return dialog;
}

const submit = (dialog: Locator) => dialog.getByRole("button", { name: "Change", exact: true });

test("a VM that is off becomes another, name included", async ({ page, pull, enter }) => {
  await pull("vm", { name: "web", spec: devices });
  await pull("vm", { name: "db" });
  await enter();
  const dialog = await openChange(page, "web");
  await expect(dialog.getByText("Nothing is changed yet.")).toBeVisible();
  await expect(submit(dialog)).toBeDisabled();
  await expect(dialog.getByRole("textbox", { name: "Disks" })).toHaveValue("web.img,bytes=50M,ops=1000\ntools.img,ro");
  await expect(dialog.getByRole("textbox", { name: "Network cards" })).toHaveValue(`br0,mac=${mac}\nbr1,mac=52:54:00:12:34:57,tx-bytes=1G`);
  const name = dialog.getByRole("textbox", { name: "Name", exact: true });
  await name.fill("db");
  await expect(dialog.getByText("There is a VM with this name.")).toBeVisible();
  await name.fill("www");
  await dialog.getByRole("textbox", { name: "vCPUs" }).fill("2");
  await dialog.getByRole("textbox", { name: "Kernel", exact: true }).fill("");
  await dialog.getByRole("textbox", { name: "Disks" }).fill("web.img,bytes=50M,ops=1000,burst=200ms\nnew.img");
  await dialog.getByRole("combobox", { name: "Sockets to the host" }).selectOption("Sockets between guest and host");
  await expect(dialog.getByLabel("As a vmctl line")).toHaveText(
    "vmctl vm set web --name www --vcpus 2 --kernel '' --initrd '' --cmdline '' --disk web.img,bytes=50M,ops=1000,burst=200ms --disk new.img --vsock=auto",
  );
  await expect(dialog.getByLabel("As a curl line")).toContainText(`-H 'If-Match: "1"'`);
  const sent = page.waitForRequest((request) => request.method() === "PATCH");
  await submit(dialog).click();
  expect((await sent).headers()["if-match"]).toBe('"1"');
  expect((await sent).postDataJSON()).toEqual({
    name: "www",
    spec: {
      vcpus: 2,
      boot: { kernel: null, initrd: null, cmdline: null },
      disks: [{ path: "web.img", limit: { bytesPerSecond: 50 * 2 ** 20, opsPerSecond: 1000, burstMillis: 200 } }, { path: "new.img" }],
      vsock: {},
    },
  });
  await expect(dialog).toBeHidden();
  await expect(page).toHaveURL(/\/ui\/vms\/www$/);
  await expect(page.getByRole("heading", { name: "www" })).toBeVisible();
  await expect(page.getByText("at most 50 MiB/s, 1,000 requests/s, bursts of 200 ms")).toBeVisible();
});

test("of a VM that runs limits can change, and the rest says why not", async ({ page, pull, enter }) => {
  await pull("vm", { name: "web", spec: devices, status: { state: "running" } });
  await enter();
  const dialog = await openChange(page, "web");
  await expect(dialog.getByText("the rest can once it is off.")).toBeVisible();
  for (const field of ["Name", "vCPUs", "Memory", "Kernel", "Kernel command line"]) {
    await expect(dialog.getByRole("textbox", { name: field, exact: true })).toBeDisabled();
  }
  await expect(dialog.getByRole("combobox", { name: "Console" })).toBeDisabled();
  const disks = dialog.getByRole("textbox", { name: "Disks" });
  await disks.fill("web.img,bytes=lots\ntools.img,ro");
  await expect(dialog.getByText("“bytes=lots” is not from 4K to 1T")).toBeVisible();
  await disks.fill("web.img,bytes=10M");
  await expect(dialog.getByText("Only the limits of disks can change while web is running.")).toBeVisible();
  await disks.fill("web.img,bytes=10M\ntools.img,ro");
  await dialog.getByRole("textbox", { name: "Network cards" }).fill("br0,down\nbr1");
  await dialog.getByRole("combobox", { name: "When it crashes" }).selectOption("Power on again, ever later");
  await expect(dialog.getByLabel("As a vmctl line")).toHaveText(
    "vmctl vm set web --disk-limit 0,bytes=10M --link 0=down --nic-limit 1 --on-crash restart",
  );
  await submit(dialog).click();
  await expect(dialog).toBeHidden();
  await expect(page.getByText("web.img, at most 10 MiB/s")).toBeVisible();
  await expect(page.getByText(`br0, address ${mac}, link down`)).toBeVisible();
});

test("who typed for an older VM is told, and may load the newer values", async ({ page, pull, enter }) => {
  await pull("vm", { name: "web" });
  await enter();
  const dialog = await openChange(page, "web");
  await pull("change", { name: "web", spec: { vcpus: 3 }, silent: true });
  await dialog.getByRole("textbox", { name: "vCPUs" }).fill("2");
  await submit(dialog).click();
  await expect(dialog.getByText("web was changed meanwhile")).toBeVisible();
  await expect(submit(dialog)).toBeDisabled();
  await dialog.getByRole("button", { name: "Load the newer values" }).click();
  await expect(dialog.getByRole("textbox", { name: "vCPUs" })).toHaveValue("3");
  await expect(dialog.getByText("web was changed meanwhile")).toBeHidden();
  // One that the stream tells of is known before anything is sent.
  await pull("change", { name: "web", spec: { vcpus: 4 } });
  await expect(dialog.getByText("web was changed meanwhile")).toBeVisible();
  await dialog.getByRole("button", { name: "Load the newer values" }).click();
  await expect(dialog.getByRole("textbox", { name: "vCPUs" })).toHaveValue("4");
  await dialog.getByRole("textbox", { name: "vCPUs" }).fill("1");
  await pull("fail", { error: { status: 409, code: "stateConflict", detail: "something else is being done with the VM" } });
  await submit(dialog).click();
  await expect(dialog.getByText("Something else is being done with the VM.")).toBeVisible();
  await submit(dialog).click();
  await expect(dialog).toBeHidden();
});

test("a cable is unplugged and plugged in, by who may", async ({ page, pull, enter }) => {
  await pull("vm", { name: "web", spec: devices, status: { state: "running" } });
  await enter();
  await page.getByRole("link", { name: "web", exact: true }).click();
  await expect(page.getByText("sends at most 1 GiB/s")).toBeVisible();
  await page.getByRole("button", { name: "Unplug network card 0 on br0" }).click();
  await expect(page.getByText(`address ${mac}, link down`)).toBeVisible();
  await pull("fail", { error: { status: 503, code: "monitorFailed", detail: "no connection to the monitor" } });
  await page.getByRole("button", { name: "Plug in network card 0 on br0" }).click();
  await expect(page.getByText("Could not plug in network card 0 on br0")).toBeVisible();
  await page.getByRole("button", { name: "Plug in network card 0 on br0" }).click();
  await expect(page.getByRole("button", { name: "Unplug network card 0 on br0" })).toBeVisible();
  await expect(page.getByText("Could not plug in")).toBeHidden();
  await pull("roles", { roles: ["operator"] });
  await page.reload();
  const unplug = page.getByRole("button", { name: "Unplug network card 0 on br0" });
  await expect(unplug).toHaveAttribute("aria-disabled", "true");
  await expect(page.getByRole("button", { name: "Change", exact: true })).toHaveAttribute("aria-disabled", "true");
  await unplug.focus();
  await expect(page.getByRole("tooltip")).toContainText("role admin");
});

test("a VM that somebody else renames stays on the page", async ({ page, pull, enter }) => {
  await pull("vm", { name: "web" });
  await enter();
  await page.goto("/ui/vms/web/events");
  await expect(page.getByRole("heading", { name: "web" })).toBeVisible();
  await pull("change", { name: "web", to: "www" });
  await expect(page).toHaveURL(/\/ui\/vms\/www\/events$/);
  await expect(page.getByRole("heading", { name: "www" })).toBeVisible();
  await expect(page.getByText("Configuration changed")).toBeVisible();
});
