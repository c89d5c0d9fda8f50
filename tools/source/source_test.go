// SPDX-License-Identifier: Apache-2.0

package source_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"vmctl/tools/source"
)

func TestWalkLeavesOutWhatIsNotOurs(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{
		"go.mod", "abi/vmm.h", "daemon/api/vm.go", "build/bin/x.go", "frontdoor/ui/node_modules/a/a.ts",
		"frontdoor/ui/src/a.ts", ".git/config", "_old/a.go", "other/go.mod", "other/a.go", "tools/testdata/bad.go",
	} {
		write(t, filepath.Join(root, name))
	}
	if err := os.Symlink("vmm.h", filepath.Join(root, "abi/link.h")); err != nil {
		t.Fatal(err)
	}
	var got []string
	if err := source.Walk(root, func(rel string) error { got = append(got, rel); return nil }); err != nil {
		t.Fatal(err)
	}
	want := []string{"abi/vmm.h", "daemon/api/vm.go", "frontdoor/ui/src/a.ts", "go.mod"}
	if !slices.Equal(got, want) {
		t.Errorf("walk gave %q, want %q", got, want)
	}
}

func TestWalkEndsWithTheFirstError(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "a"))
	write(t, filepath.Join(root, "b"))
	stop := errors.New("stop")
	calls := 0
	err := source.Walk(root, func(string) error { calls++; return stop })
	if !errors.Is(err, stop) || calls != 1 {
		t.Errorf("walk ended with %v after %d calls", err, calls)
	}
	if err := source.Walk(filepath.Join(root, "none"), func(string) error { return nil }); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing root gave %v", err)
	}
}

func write(t *testing.T, name string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte("x\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}
