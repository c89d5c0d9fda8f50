// SPDX-License-Identifier: Apache-2.0
// Fails when the first load of the built page, gzipped, is above its budget:
// what index.html names, the chunks that those import at once, and the one
// font that the text is set in. The console and the pages behind it come later.
import { readFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";

const budget = 350 * 1024;
const dist = new URL("dist/", import.meta.url);
const manifest = JSON.parse(await readFile(new URL(".vite/manifest.json", dist), "utf8"));

const files = new Set(["index.html", "theme.js", "favicon.svg"]);
const add = (key) => {
  const chunk = manifest[key];
  if (files.has(chunk.file)) return;
  files.add(chunk.file);
  for (const css of chunk.css ?? []) files.add(css);
  for (const asset of chunk.assets ?? []) {
    if (/RedHatTextVF-[^/]*\.woff2$/.test(asset) && !asset.includes("Italic")) files.add(asset);
  }
  for (const next of chunk.imports ?? []) add(next);
};
add("index.html");

let total = 0;
for (const file of files) {
  const bytes = await readFile(new URL(file, dist));
  const size = file.endsWith(".woff2") ? bytes.length : gzipSync(bytes, { level: 9 }).length;
  total += size;
  console.log(`${(size / 1024).toFixed(1).padStart(8)} KiB  ${file}`);
}
console.log(`${(total / 1024).toFixed(1).padStart(8)} KiB  first load, of ${budget / 1024}`);
if ([...files].some((file) => file.includes("Console"))) {
  console.error("the console is part of the first load");
  process.exitCode = 1;
}
if (![...files].some((file) => file.endsWith(".woff2"))) {
  console.error("the font was not found: look at the pattern in size.mjs");
  process.exitCode = 1;
}
if (total > budget) {
  console.error("the first load is above its budget");
  process.exitCode = 1;
}
