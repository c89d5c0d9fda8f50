// SPDX-License-Identifier: Apache-2.0
// The terminal on the page. What it is fed comes from a guest and is hostile:
// links of the guest open nothing, and what the terminal answers to questions
// found in old output goes nowhere.
import { FitAddon } from "@xterm/addon-fit";
import { Terminal } from "@xterm/xterm";
import "@xterm/xterm/css/xterm.css";
import type { PrintAbout } from "./session";

/** Printed bytes that may wait to be drawn; a guest that prints faster loses some. */
const maxPending = 4 << 20;

export interface Screen {
  print(printed: Uint8Array, about: PrintAbout): void;
  /** Fits the terminal into its element, if that is seen. */
  fit(): void;
  focus(): void;
  selection(): string;
  paste(text: string): void;
  clear(): void;
  dispose(): void;
}

export interface ScreenOptions {
  onType(bytes: Uint8Array): void;
  onSize(cols: number, rows: number): void;
  onCopy(text: string): void;
}

export function newScreen(element: HTMLElement, options: ScreenOptions): Screen {
  const terminal = new Terminal({
    scrollback: 10_000,
    fontFamily: 'ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace',
    fontSize: window.matchMedia("(max-width: 600px)").matches ? 11 : 13,
    theme: { background: "#151515", foreground: "#f0f0f0", cursor: "#f0f0f0" },
    linkHandler: { activate: () => undefined },
    convertEol: false,
  });
  const fit = new FitAddon();
  terminal.loadAddon(fit);
  terminal.open(element);
  terminal.textarea?.setAttribute("aria-label", "Console input");

  const encoder = new TextEncoder();
  let past = 0;
  let pending = 0;
  let dropped = 0;

  terminal.onData((text) => past === 0 && options.onType(encoder.encode(text)));
  terminal.onBinary((text) => past === 0 && options.onType(Uint8Array.from(text, (c) => c.charCodeAt(0))));
  terminal.onResize(({ cols, rows }) => options.onSize(cols, rows));
  terminal.attachCustomKeyEventHandler((event) => {
    // As terminals have it: Ctrl+C belongs to the guest.
    if (event.type !== "keydown" || !event.ctrlKey || !event.shiftKey || event.code !== "KeyC") return true;
    event.preventDefault();
    options.onCopy(terminal.getSelection());
    return false;
  });

  const note = (text: string) => terminal.write(`\r\n\x1b[0;7m ${text} \x1b[0m\r\n`);
  return {
    print(printed, { gap, fresh, past: isPast }) {
      if (fresh) terminal.reset();
      if (gap > 0) note(`${gap} bytes are not kept`);
      if (pending + printed.length > maxPending) {
        dropped += printed.length;
        return;
      }
      pending += printed.length;
      if (isPast) past++;
      terminal.write(printed, () => {
        pending -= printed.length;
        if (isPast) past--;
        if (pending === 0 && dropped > 0) {
          note(`${dropped} bytes came too fast to be shown`);
          dropped = 0;
        }
      });
    },
    fit: () => {
      if (element.clientHeight > 0) fit.fit();
    },
    focus: () => terminal.focus(),
    selection: () => terminal.getSelection(),
    paste: (text) => terminal.paste(text),
    clear: () => terminal.clear(),
    dispose: () => terminal.dispose(),
  };
}
