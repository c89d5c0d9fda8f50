// SPDX-License-Identifier: Apache-2.0
import { Divider } from "@patternfly/react-core/dist/dynamic/components/Divider";
import { Dropdown, DropdownItem, DropdownList } from "@patternfly/react-core/dist/dynamic/components/Dropdown";
import { MenuToggle } from "@patternfly/react-core/dist/dynamic/components/MenuToggle";
import UserIcon from "@patternfly/react-icons/dist/esm/icons/user-icon";
import { useMutation } from "@tanstack/react-query";
import { useState } from "react";
import { useWhoAmI } from "../live/Live";
import { type Session, useLogout } from "../login/session";
import { ProblemAlert } from "../ui/ProblemAlert";

export function UserMenu({ session }: { session: Session }) {
  const [open, setOpen] = useState(false);
  const who = useWhoAmI();
  const logout = useLogout();
  const leave = useMutation({ mutationFn: logout });
  const roles = who.data?.roles.join(", ") || "no role";
  return (
    <Dropdown
      isOpen={open}
      onOpenChange={setOpen}
      popperProps={{ position: "right" }}
      toggle={(ref) => (
        <MenuToggle
          ref={ref}
          variant="plainText"
          icon={<UserIcon />}
          isExpanded={open}
          aria-label={`Logged in as ${session.user}`}
          onClick={() => setOpen(!open)}
        >
          <span className="vmctl-wide-only">{session.user}</span>
        </MenuToggle>
      )}
    >
      <div className="vmctl-who">
        <strong>{session.user}</strong>
        <div className="vmctl-small">
          {session.principal}, {who.data ? roles : "…"}
        </div>
        <div className="vmctl-small">from {session.address || "an unknown address"}</div>
        {leave.error && <ProblemAlert error={leave.error} title="Could not log out" />}
      </div>
      <Divider />
      <DropdownList>
        <DropdownItem onClick={() => leave.mutate()} isDisabled={leave.isPending}>
          Log out
        </DropdownItem>
      </DropdownList>
    </Dropdown>
  );
}
