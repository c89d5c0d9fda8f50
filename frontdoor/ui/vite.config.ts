// SPDX-License-Identifier: Apache-2.0
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import react from "@vitejs/plugin-react";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

// Where `npm run dev` finds an API: a vmhttp, or the stub of tests/ui.
const backend = process.env.VMCTL_URL ?? "http://127.0.0.1:5180";

/** Puts a .gz beside each text file of assets/, to be sent to whoever takes it. */
function gzip(): Plugin {
  let folder = "";
  return {
    name: "gzip",
    apply: "build",
    configResolved: (config) => void (folder = join(config.root, config.build.outDir, "assets")),
    closeBundle: async () => {
      const texts = (await readdir(folder)).filter((name) => /\.(js|css|svg)$/.test(name));
      for (const name of texts) {
        const file = join(folder, name);
        await writeFile(`${file}.gz`, gzipSync(await readFile(file), { level: 9 }));
      }
    },
  };
}

export default defineConfig({
  base: "/ui/",
  plugins: [react(), gzip()],
  build: {
    // The policy has no data: for fonts, and inlined files are not cached.
    assetsInlineLimit: 0,
    // public/.gitkeep is copied over, so that Go can embed an unbuilt dist.
    emptyOutDir: true,
    manifest: true,
    // What the first load may weigh is held by size.mjs.
    chunkSizeWarningLimit: 1000,
  },
  server: {
    proxy: Object.fromEntries(
      ["/api", "/auth", "/console"].map((path) => [path, { target: backend, secure: false, ws: true }]),
    ),
  },
  test: { include: ["src/**/*.test.ts"], environment: "node" },
});
