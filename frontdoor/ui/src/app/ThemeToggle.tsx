// SPDX-License-Identifier: Apache-2.0
import { ToggleGroup, ToggleGroupItem } from "@patternfly/react-core/dist/dynamic/components/ToggleGroup";
import DesktopIcon from "@patternfly/react-icons/dist/esm/icons/desktop-icon";
import MoonIcon from "@patternfly/react-icons/dist/esm/icons/moon-icon";
import SunIcon from "@patternfly/react-icons/dist/esm/icons/sun-icon";
import { useEffect, useState } from "react";
import { chooseTheme, followSystem, storedTheme, type ThemeChoice } from "./theme";

const choices: { choice: ThemeChoice; label: string; icon: React.ReactNode }[] = [
  { choice: "system", label: "Colours as the system has them", icon: <DesktopIcon /> },
  { choice: "light", label: "Light colours", icon: <SunIcon /> },
  { choice: "dark", label: "Dark colours", icon: <MoonIcon /> },
];

export function ThemeToggle() {
  const [chosen, setChosen] = useState(storedTheme);
  useEffect(() => followSystem(chosen), [chosen]);
  return (
    <ToggleGroup aria-label="Colours">
      {choices.map(({ choice, label, icon }) => (
        <ToggleGroupItem
          key={choice}
          icon={icon}
          aria-label={label}
          isSelected={chosen === choice}
          onChange={() => {
            chooseTheme(choice);
            setChosen(choice);
          }}
        />
      ))}
    </ToggleGroup>
  );
}
