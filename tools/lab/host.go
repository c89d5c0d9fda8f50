// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

const aptFolder = "/etc/apt"

// wantHostTools makes sure that the host has what trees are made with. It is
// asked only when there is something to make.
func (l *lab) wantHostTools(ctx context.Context) (err error) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("this is not a Debian: the lab needs apt-get and mmdebstrap to make its trees")
	}
	var missing []string
	want := map[string]string{"mmdebstrap": "mmdebstrap", "dpkg-deb": "dpkg"}
	if os.Getuid() != 0 {
		want["newuidmap"] = "uidmap"
	}
	for program, name := range want {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, name)
		}
	}
	if !exists(keyring) {
		missing = append(missing, "debian-archive-keyring")
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	names := strings.Join(missing, " ")
	if os.Getuid() != 0 {
		return fmt.Errorf("packages are missing: run as root: apt-get install %s", names)
	}
	defer l.out.step("installing %s", names)(&err)
	install := append([]string{"-qq", "-y", "--no-install-recommends", "install"}, missing...)
	if _, err := tool(ctx, "", "apt-get", install...); err != nil {
		// The package lists may be missing or old.
		if _, err := tool(ctx, "", "apt-get", "-qq", "update"); err != nil {
			return fmt.Errorf("install %s: %w", names, err)
		}
		if _, err := tool(ctx, "", "apt-get", install...); err != nil {
			return fmt.Errorf("install %s: %w", names, err)
		}
	}
	return nil
}
