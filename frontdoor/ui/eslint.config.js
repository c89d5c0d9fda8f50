// SPDX-License-Identifier: Apache-2.0
import hooks from "eslint-plugin-react-hooks";
import tseslint from "typescript-eslint";

export default tseslint.config(
  { ignores: ["dist", "node_modules", "src/*/schema.d.ts", "public"] },
  ...tseslint.configs.recommended,
  hooks.configs.flat["recommended-latest"],
  {
    files: ["src/**/*.{ts,tsx}"],
    languageOptions: { parserOptions: { projectService: true } },
    rules: {
      "@typescript-eslint/no-floating-promises": "error",
      "@typescript-eslint/no-misused-promises": "error",
      "@typescript-eslint/switch-exhaustiveness-check": ["error", { considerDefaultExhaustiveForUnions: true }],
      // One path per component keeps what is not used out of the bundle.
      "no-restricted-imports": [
        "error",
        {
          paths: ["@patternfly/react-core", "@patternfly/react-icons", "@patternfly/react-table"],
        },
      ],
      // The policy of the page forbids both.
      "no-eval": "error",
      "no-new-func": "error",
    },
  },
);
