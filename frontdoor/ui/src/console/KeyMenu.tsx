// SPDX-License-Identifier: Apache-2.0
import { Dropdown, DropdownItem, DropdownList } from "@patternfly/react-core/dist/dynamic/components/Dropdown";
import { MenuToggle } from "@patternfly/react-core/dist/dynamic/components/MenuToggle";
import { useState } from "react";

/** Keys that a browser keeps for itself, or that a phone does not have. */
const keys: [label: string, text: string][] = [
  ["Ctrl+C", "\x03"],
  ["Ctrl+D", "\x04"],
  ["Ctrl+Z", "\x1a"],
  ["Ctrl+W", "\x17"],
  ["Esc", "\x1b"],
  ["Tab", "\t"],
  ["Up", "\x1b[A"],
  ["Down", "\x1b[B"],
];

export function KeyMenu({ isDisabled, onSend }: { isDisabled: boolean; onSend: (bytes: Uint8Array) => void }) {
  const [open, setOpen] = useState(false);
  return (
    <Dropdown
      isOpen={open}
      onOpenChange={setOpen}
      onSelect={() => setOpen(false)}
      toggle={(ref) => (
        <MenuToggle ref={ref} size="sm" isDisabled={isDisabled} isExpanded={open} onClick={() => setOpen(!open)}>
          Keys
        </MenuToggle>
      )}
    >
      <DropdownList>
        {keys.map(([label, text]) => (
          <DropdownItem key={label} onClick={() => onSend(new TextEncoder().encode(text))}>
            {label}
          </DropdownItem>
        ))}
      </DropdownList>
    </Dropdown>
  );
}
