// SPDX-License-Identifier: Apache-2.0
// The console of one VM: a terminal and a line about its connection. Loaded
// when first looked at.
import { Button } from "@patternfly/react-core/dist/dynamic/components/Button";
import { Label } from "@patternfly/react-core/dist/dynamic/components/Label";
import { useEffect, useRef, useState } from "react";
import type { VM } from "../api/model";
import { KeyMenu } from "./KeyMenu";
import type { ConsoleState } from "./session";
import { useConsole } from "./useConsole";
import { viewersText } from "./viewers";

export default function Console({ vm, visible }: { vm: VM; visible: boolean }) {
  const [note, setNote] = useState("");
  const frame = useRef<HTMLDivElement>(null);
  const copy = (text: string) => {
    if (!text) return setNote("Nothing is selected.");
    navigator.clipboard.writeText(text).then(
      () => setNote("Copied."),
      () => setNote("The browser does not let this page copy."),
    );
  };
  const { state, session, screen, attach } = useConsole(vm.id, copy);
  useEffect(() => {
    if (!visible) return;
    screen.current?.fit();
    screen.current?.focus();
  }, [visible, screen]);
  useEffect(() => {
    const timer = setTimeout(() => setNote(""), 4000);
    return () => clearTimeout(timer);
  }, [note]);

  const writing = state.at === "open" && state.viewers.some((v) => v.id === state.me && v.writer);
  const paste = () => {
    if (!writing) return setNote("Only who writes can paste.");
    navigator.clipboard.readText().then(
      (text) => {
        screen.current?.paste(text);
        screen.current?.focus();
      },
      () => setNote("The browser does not let this page read the clipboard: press Ctrl+Shift+V."),
    );
  };
  return (
    <div className="vmctl-console" ref={frame}>
      <div className="vmctl-console-bar">
        <Connection state={state} />
        <span className="vmctl-small vmctl-grow">
          {state.at === "open" && viewersText(state.viewers, state.me)}
          {note && ` ${note}`}
        </span>
        <div className="vmctl-console-buttons">
          {state.at === "open" && !writing && (
            <Button size="sm" variant="secondary" onClick={() => session.current?.take()}>
              Take over
            </Button>
          )}
          {(state.at === "waiting" || state.at === "closed") && (
            <Button size="sm" onClick={() => session.current?.open()}>
              Reconnect
            </Button>
          )}
          <KeyMenu
            isDisabled={!writing}
            onSend={(bytes) => {
              session.current?.type(bytes);
              screen.current?.focus();
            }}
          />
          <Button size="sm" variant="tertiary" onClick={() => copy(screen.current?.selection() ?? "")}>
            Copy
          </Button>
          <Button size="sm" variant="tertiary" onClick={paste}>
            Paste
          </Button>
          {state.at === "open" && (
            <Button size="sm" variant="tertiary" onClick={() => session.current?.close()}>
              Disconnect
            </Button>
          )}
          <Button size="sm" variant="tertiary" onClick={() => void frame.current?.requestFullscreen().catch(() => undefined)}>
            Full screen
          </Button>
        </div>
      </div>
      <Why state={state} />
      <div className="vmctl-terminal" ref={attach} role="group" aria-label={`Console of ${vm.name}`} />
    </div>
  );
}

function Connection({ state }: { state: ConsoleState }) {
  switch (state.at) {
    case "opening":
      return <Label isCompact>Connecting</Label>;
    case "open":
      return (
        <Label isCompact status="success">
          Connected
        </Label>
      );
    case "waiting":
      return (
        <Label isCompact status="warning">
          Reconnecting
        </Label>
      );
    case "closed":
      return (
        <Label isCompact status="danger">
          Closed
        </Label>
      );
  }
}

/** Why says what ended the connection, as long as there is none. */
function Why({ state }: { state: ConsoleState }) {
  const reason = state.at === "waiting" || state.at === "closed" ? state.reason : "";
  return (
    <div className="vmctl-console-why" role="status" hidden={!reason}>
      {reason}
      {state.at === "closed" && state.requestId && (
        <>
          {" "}
          Request <code>{state.requestId}</code>.
        </>
      )}
    </div>
  );
}
