// SPDX-License-Identifier: Apache-2.0
// Ties a console's session to a terminal for as long as both are shown.
import { type RefObject, useCallback, useEffect, useRef, useState } from "react";
import { consoleToken } from "../vm/ask";
import { newScreen, type Screen } from "./screen";
import { ConsoleSession, type ConsoleState } from "./session";

export interface ConsoleHandle {
  state: ConsoleState;
  session: RefObject<ConsoleSession | null>;
  screen: RefObject<Screen | null>;
  /** Where the terminal goes. */
  attach: (element: HTMLElement | null) => (() => void) | undefined;
}

export function useConsole(id: string, onCopy: (text: string) => void): ConsoleHandle {
  const [state, setState] = useState<ConsoleState>({ at: "opening" });
  const session = useRef<ConsoleSession>(null);
  const screen = useRef<Screen>(null);
  const copy = useRef(onCopy);
  useEffect(() => {
    copy.current = onCopy;
  }, [onCopy]);

  const attach = useCallback(
    (element: HTMLElement | null) => {
      if (!element) return undefined;
      const own = newScreen(element, {
        onType: (bytes) => link.type(bytes),
        onSize: (cols, rows) => link.resize(cols, rows),
        onCopy: (text) => copy.current(text),
      });
      const link = new ConsoleSession({
        token: (mode) => consoleToken(id, mode),
        dial: (token, since, protocol) => new WebSocket(consoleURL(id, token, since), protocol),
        onState: setState,
        onPrint: (printed, about) => own.print(printed, about),
      });
      screen.current = own;
      session.current = link;
      const sized = new ResizeObserver(() => own.fit());
      sized.observe(element);
      own.fit();
      link.open("rw");
      const wake = () => document.visibilityState === "visible" && link.wake();
      document.addEventListener("visibilitychange", wake);
      window.addEventListener("online", wake);
      return () => {
        document.removeEventListener("visibilitychange", wake);
        window.removeEventListener("online", wake);
        sized.disconnect();
        link.close();
        own.dispose();
        screen.current = null;
        session.current = null;
      };
    },
    [id],
  );
  return { state, session, screen, attach };
}

function consoleURL(id: string, token: string, since: number): string {
  const url = new URL(`/console/${encodeURIComponent(id)}`, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  url.searchParams.set("token", token);
  if (since > 0) url.searchParams.set("offset", String(since));
  return url.href;
}
