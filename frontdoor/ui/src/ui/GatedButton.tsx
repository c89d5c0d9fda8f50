// SPDX-License-Identifier: Apache-2.0
// A button that may be off. Then it stays in reach of the keyboard and says why.
import { Button, type ButtonProps } from "@patternfly/react-core/dist/dynamic/components/Button";
import { Tooltip } from "@patternfly/react-core/dist/dynamic/components/Tooltip";
import type { Gate } from "../vm/power";

/** `tip` is what it says when it is on, if anything. */
export function GatedButton({ gate, tip, onClick, ...rest }: { gate: Gate; tip?: string | undefined } & ButtonProps) {
  const button = <Button {...rest} isAriaDisabled={!gate.open} onClick={gate.open ? onClick : undefined} />;
  const said = gate.open ? tip : gate.reason;
  return said ? <Tooltip content={said}>{button}</Tooltip> : button;
}
