// SPDX-License-Identifier: Apache-2.0

//go:build lab

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestBrowser drives the interface in Chromium: log in, power on, type into the
// console, read the answer. Its screenshots are looked for, so that a run that
// showed nothing does not pass.
func TestBrowser(t *testing.T) {
	shots := filepath.Join(root, "build/ui-screenshots")
	if err := os.RemoveAll(shots); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("npm", "test", "--silent")
	cmd.Dir = filepath.Join(root, "tests/ui")
	cmd.Env = append(os.Environ(), theChain.env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
	if found, err := filepath.Glob(filepath.Join(shots, "*.png")); err != nil || len(found) == 0 {
		t.Errorf("no screenshot in %s: %v", shots, err)
	}
}
