// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"os/exec"
	"strings"
	"testing"
)

// What is linked into vmx is paid for by every VM. tools/checkdeps holds what
// our files import; this holds what comes with that.
func TestWhatVMXIsMadeOf(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", ".")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	banned := map[string]bool{
		"net": true, "net/http": true, "encoding/json": true, "encoding/gob": true, "log/slog": true, "log": true,
		"text/template": true, "regexp": true, "os/exec": true, "os/signal": true, "crypto/tls": true, "math/big": true,
	}
	foreign := map[string]bool{"golang.org/x/sys/unix": true}
	for _, p := range strings.Fields(string(out)) {
		if banned[p] {
			t.Errorf("vmx is linked with %s", p)
		}
		if first, _, _ := strings.Cut(p, "/"); strings.Contains(first, ".") && !foreign[p] {
			t.Errorf("vmx is linked with %s, of another project", p)
		}
	}
}
