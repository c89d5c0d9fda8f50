// SPDX-License-Identifier: Apache-2.0
// Makes the types of both APIs from their OpenAPI documents. With --check it
// fails when a file is not what its document says.
import { readFile, writeFile } from "node:fs/promises";
import openapiTS, { astToString, COMMENT_HEADER } from "openapi-typescript";

const made = [
  { from: "../../daemon/api/openapi.json", to: "src/api/schema.d.ts" },
  { from: "../login/openapi.json", to: "src/login/schema.d.ts" },
];

for (const { from, to } of made) {
  const target = new URL(to, import.meta.url);
  const want = COMMENT_HEADER + astToString(await openapiTS(new URL(from, import.meta.url)));
  if (!process.argv.includes("--check")) {
    await writeFile(target, want);
  } else if ((await readFile(target, "utf8").catch(() => "")) !== want) {
    console.error(`${to} is not made from ${from}: npm run gen`);
    process.exitCode = 1;
  }
}
