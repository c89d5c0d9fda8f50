// SPDX-License-Identifier: Apache-2.0
// Runs before the page is painted, so that a dark page never flashes light.
// The key and the class are those of src/app/theme.ts.
(function () {
  var choice = null;
  try {
    choice = localStorage.getItem("vmctl.theme");
  } catch (e) {
    // Storage is off: follow the system.
  }
  var system = matchMedia("(prefers-color-scheme: dark)").matches;
  var dark = choice === "dark" || (choice !== "light" && system);
  document.documentElement.classList.toggle("pf-v6-theme-dark", dark);
  document.documentElement.style.colorScheme = dark ? "dark" : "light";
})();
