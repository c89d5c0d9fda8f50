// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// godefs has cgo turn the constants and structures of the headers into Go.
func godefs(s *symbols, header, include string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "abigen")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	header, err = filepath.Abs(header)
	if err != nil {
		return nil, err
	}
	include, err = filepath.Abs(include)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "in.go"), godefsInput(s, header), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "tool", "cgo", "-godefs", "-objdir", filepath.Join(dir, "obj"), "--", "-I", include, "in.go")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("cgo -godefs: %w\n%s", err, stderr.Bytes())
	}
	return out, nil
}

// godefsInput is what cgo reads: one line for each symbol.
func godefsInput(s *symbols, header string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "package abi\n\n// #include %q\nimport \"C\"\n\nconst (\n", header)
	for _, c := range s.consts {
		fmt.Fprintf(&b, "\t%s = C.%s\n", c.goN, c.c)
	}
	b.WriteString(")\n\n")
	for _, t := range s.structs {
		fmt.Fprintf(&b, "type %s C.struct_%s\n\n", t.goN, t.c)
	}
	return []byte(b.String())
}
