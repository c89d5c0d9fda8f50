// SPDX-License-Identifier: Apache-2.0
// What is around every page: masthead, navigation, and the recent tasks.
import {
  Masthead,
  MastheadBrand,
  MastheadContent,
  MastheadLogo,
  MastheadMain,
  MastheadToggle,
} from "@patternfly/react-core/dist/dynamic/components/Masthead";
import { Nav, NavItem, NavList } from "@patternfly/react-core/dist/dynamic/components/Nav";
import { Page, PageSidebar, PageSidebarBody, PageToggleButton } from "@patternfly/react-core/dist/dynamic/components/Page";
import { SkipToContent } from "@patternfly/react-core/dist/dynamic/components/SkipToContent";
import { useState } from "react";
import { NavLink, useLocation } from "react-router";
import type { Session } from "../login/session";
import { TaskDrawer } from "./TaskDrawer";
import { StreamStatus } from "./StreamStatus";
import { ThemeToggle } from "./ThemeToggle";
import { UserMenu } from "./UserMenu";

const places = [
  { path: "/vms", label: "Virtual machines" },
  { path: "/tasks", label: "Tasks" },
  { path: "/events", label: "Events" },
];

const mainId = "main";
/** Where PatternFly's sidebar begins to lie over the page. */
const narrow = () => window.matchMedia("(max-width: 1199px)").matches;

export function Frame(props: { session: Session; children: React.ReactNode }) {
  const [sidebar, setSidebar] = useState(() => !narrow());
  return (
    <div className="vmctl-frame">
      <Page
        isContentFilled
        mainContainerId={mainId}
        skipToContent={<SkipToContent href={`#${mainId}`}>Skip to the content</SkipToContent>}
        masthead={<Head session={props.session} sidebar={sidebar} onToggle={() => setSidebar((open) => !open)} />}
        sidebar={<Sidebar open={sidebar} onGo={() => narrow() && setSidebar(false)} />}
      >
        {props.children}
      </Page>
      <TaskDrawer />
    </div>
  );
}

function Sidebar({ open, onGo }: { open: boolean; onGo: () => void }) {
  const { pathname } = useLocation();
  return (
    <PageSidebar isSidebarOpen={open} id="sidebar">
      <PageSidebarBody>
        <Nav aria-label="Main">
          <NavList>
            {places.map(({ path, label }) => (
              <NavItem key={path} itemId={path} isActive={pathname.startsWith(path)}>
                <NavLink to={path} onClick={onGo}>{label}</NavLink>
              </NavItem>
            ))}
          </NavList>
        </Nav>
      </PageSidebarBody>
    </PageSidebar>
  );
}

function Head(props: { session: Session; sidebar: boolean; onToggle: () => void }) {
  return (
    <Masthead display={{ default: "inline" }}>
      <MastheadMain>
        <MastheadToggle>
          <PageToggleButton
            isHamburgerButton
            aria-label="Navigation"
            isSidebarOpen={props.sidebar}
            onSidebarToggle={props.onToggle}
          />
        </MastheadToggle>
        <MastheadBrand>
          <MastheadLogo component={(p) => <NavLink {...p} to="/vms" aria-label="vmctl: all virtual machines" />}>
            <img src={`${import.meta.env.BASE_URL}favicon.svg`} alt="" width={28} height={28} />
            <span className="vmctl-brand">vmctl</span>
          </MastheadLogo>
        </MastheadBrand>
      </MastheadMain>
      <MastheadContent>
        <div className="vmctl-head">
          <StreamStatus />
          <ThemeToggle />
          <UserMenu session={props.session} />
        </div>
      </MastheadContent>
    </Masthead>
  );
}
