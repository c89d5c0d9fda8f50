// SPDX-License-Identifier: Apache-2.0
import "@patternfly/react-core/dist/styles/base.css";
import { QueryClientProvider } from "@tanstack/react-query";
import { createRoot } from "react-dom/client";
import { BrowserRouter } from "react-router";
import { App } from "./app/App";
import { newQueryClient } from "./app/queries";
// Behind the components' own styles, which it changes.
import "./app/app.css";

createRoot(document.getElementById("root")!).render(
  <QueryClientProvider client={newQueryClient()}>
    <BrowserRouter basename="/ui">
      <App />
    </BrowserRouter>
  </QueryClientProvider>,
);
