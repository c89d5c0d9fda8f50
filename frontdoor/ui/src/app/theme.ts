// SPDX-License-Identifier: Apache-2.0
// Dark or light: what the system says, unless this browser was told otherwise.
// public/theme.js sets the class before the first paint.

export type ThemeChoice = "system" | "light" | "dark";

const key = "vmctl.theme";
const system = () => window.matchMedia("(prefers-color-scheme: dark)");

export function storedTheme(): ThemeChoice {
  try {
    const choice = localStorage.getItem(key);
    return choice === "dark" || choice === "light" ? choice : "system";
  } catch {
    return "system";
  }
}

export function chooseTheme(choice: ThemeChoice): void {
  try {
    if (choice === "system") localStorage.removeItem(key);
    else localStorage.setItem(key, choice);
  } catch {
    // Storage is off: the choice lasts as long as the page.
  }
  show(choice);
}

/** followSystem applies what the system changes to; returns how to stop. */
export function followSystem(choice: ThemeChoice): () => void {
  const query = system();
  const changed = () => show(choice);
  query.addEventListener("change", changed);
  return () => query.removeEventListener("change", changed);
}

function show(choice: ThemeChoice): void {
  const dark = choice === "dark" || (choice === "system" && system().matches);
  document.documentElement.classList.toggle("pf-v6-theme-dark", dark);
  document.documentElement.style.colorScheme = dark ? "dark" : "light";
}
