// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tree writes the files below a new folder with a go.mod and loads them.
func tree(t *testing.T, files map[string]string) []file {
	t.Helper()
	root := t.TempDir()
	files["go.mod"] = "module vmctl\n\ngo 1.26.0\n"
	for name, text := range files {
		full := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	loaded, err := load(root)
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

func TestTableOnUses(t *testing.T) {
	cases := []struct {
		name string
		file string
		text string
		want string // part of the one finding; empty: none
	}{
		{"granted edge", "daemon/client/a.go", `package client; import _ "vmctl/daemon/api"`, ""},
		{"edge without row", "daemon/client/a.go", `package client; import _ "vmctl/daemon/store"`,
			"daemon/client/a.go:1: daemon/client must not import daemon/store (of ours it may import daemon/api)"},
		{"package without rows", "daemon/api/a.go", `package api; import _ "vmctl/abi"`, "it may import none of our packages"},
		{"monitor to daemon", "monitor/machine/a.go", `package machine; import _ "vmctl/daemon/api"`, "must not import daemon/api"},
		{"front door to monitor", "frontdoor/console/a.go", `package console; import _ "vmctl/monitor/console"`, "must not import monitor/console "},
		{"front door to the frames", "frontdoor/console/a.go", `package console; import _ "vmctl/monitor/console/proto"`, ""},
		{"main imports its own side", "daemon/vmctld/main.go", `package main; import _ "vmctl/daemon/store"`, ""},
		{"main of the other side", "frontdoor/vmhttp/main.go", `package main; import _ "vmctl/daemon/rest"`, "must not import daemon/rest"},
		{"external test of itself", "daemon/api/a_test.go", `package api_test; import _ "vmctl/daemon/api"`, ""},
		{"fake kernel in a test", "daemon/vm/a_test.go", `package vm; import _ "vmctl/daemon/kern/kerntest"`, ""},
		{"fake kernel in main", "daemon/vmctld/main.go", `package main; import _ "vmctl/daemon/kern/kerntest"`, "must not import daemon/kern/kerntest"},
		{"fake kernel in main's test", "daemon/vmctld/main_test.go", `package main; import _ "vmctl/daemon/kern/kerntest"`, ""},
		{"leaf below a wide row", "monitor/wire/a.go", `package wire; import _ "vmctl/abi"`, "must not import abi"},
		{"frames stay small", "monitor/console/proto/a.go", `package proto; import _ "vmctl/monitor/console"`, "of ours it may import monitor/wire"},
		{"wide row", "monitor/machine/a.go", `package machine; import _ "vmctl/monitor/bus"`, ""},
		{"no part at all", "other/a.go", `package other; import _ "vmctl/abi"`, "it may import none of our packages"},
		{"fake kernel in the product", "daemon/vm/a.go", `package vm; import _ "vmctl/daemon/kern/kerntest"`, "must not import daemon/kern/kerntest"},
		{"folder with a longer name", "daemon/clients/a.go", `package clients; import _ "vmctl/daemon/api"`, "must not import daemon/api"},
		{"other platform", "daemon/vm/a_windows.go", `package vm; import _ "vmctl/abi"`, "must not import abi"},
		{"ignored by its tags", "daemon/vm/a.go", "//go:build ignore\n\npackage main\nimport _ \"vmctl/abi\"", "a.go:4: daemon/vm must not import abi"},

		{"unsafe", "daemon/vm/a.go", `package vm; import _ "unsafe"`, "must not use unsafe"},
		{"unsafe in a test", "daemon/vm/a_test.go", `package vm; import _ "unsafe"`, "must not use unsafe"},
		{"unsafe where it belongs", "monitor/mem/a.go", `package mem; import _ "unsafe"`, ""},
		{"cgo", "daemon/kern/a.go", `package kern; import "C"`, "must not use C"},
		{"client of HTTP", "daemon/client/a.go", `package client; import "net/http"; var _ http.Client`, ""},
		{"server", "daemon/metrics/a.go", `package metrics; import "net/http"; var _ http.Server`, "must not use net/http.Server"},
		{"server by another name", "tools/vmctl/a.go", `package main; import h "net/http"; var _ = h.ListenAndServe`, "must not use net/http.ListenAndServe"},
		{"server in a test", "tools/vmctl/a_test.go", `package main; import "net/http"; var _ http.Server`, ""},
		{"server where it belongs", "daemon/rest/a.go", `package rest; import "net/http"; var _ = http.Serve`, ""},
		{"exec", "daemon/vm/a.go", `package vm; import _ "os/exec"`, "must not use os/exec"},
		{"exec without its package", "daemon/vm/a.go", `package vm; import "os"; var _ = os.StartProcess`, "must not use os.StartProcess"},
		{"exec in a tool", "tools/lab/a.go", `package main; import _ "os/exec"`, ""},
		{"heavy encoder in vmx", "monitor/ctl/a.go", `package ctl; import _ "encoding/json"`, "must not use encoding/json"},
		{"heavy encoder in vmx's test", "monitor/ctl/a_test.go", `package ctl; import _ "encoding/json"`, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			found := table.check(tree(t, map[string]string{c.file: c.text}))
			switch {
			case c.want == "" && len(found) != 0:
				t.Errorf("found %v", found)
			case c.want != "" && len(found) != 1:
				t.Errorf("found %v, want one with %q", found, c.want)
			case c.want != "" && !strings.Contains(found[0].String(), c.want):
				t.Errorf("found %q, want %q in it", found[0], c.want)
			}
		})
	}
}

func TestFindingsAreOrdered(t *testing.T) {
	found := table.check(tree(t, map[string]string{
		"daemon/vm/b.go": "package vm\nimport _ \"unsafe\"\nimport _ \"vmctl/abi\"\n",
		"daemon/vm/a.go": "package vm\nimport _ \"os/exec\"\n",
	}))
	if len(found) != 3 || found[0].file != "daemon/vm/a.go" || found[1].line != 2 || found[2].line != 3 {
		t.Errorf("found %v", found)
	}
}

func TestLoadRefusesWhatItCannotRead(t *testing.T) {
	root := t.TempDir()
	if _, err := load(root); err == nil {
		t.Error("a folder without go.mod was accepted")
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "go 1.26\n")
	if _, err := load(root); err == nil || !strings.Contains(err.Error(), "no module line") {
		t.Errorf("a go.mod without a module gave %v", err)
	}
	write("go.mod", "module vmctl\n")
	write("a.go", "package a; import (")
	if _, err := load(root); err == nil || !strings.Contains(err.Error(), "a.go:1") {
		t.Errorf("a broken file gave %v", err)
	}
}

// TestRowsHaveTargets guards against a row that a typing error made void.
func TestRowsHaveTargets(t *testing.T) {
	for _, r := range append(table.edges, table.testEdges...) {
		if r.why == "" {
			t.Errorf("row %q has no reason", r.from)
		}
		for _, p := range append(r.to, r.from) {
			if p == "" || strings.HasPrefix(p, "vmctl/") || strings.HasSuffix(p, "/") {
				t.Errorf("row %q -> %q: %q is no folder of ours", r.from, r.to, p)
			}
		}
	}
	for _, g := range table.guards {
		if g.why == "" || len(g.what) == 0 || len(g.only) == 0 {
			t.Errorf("guard %v says too little", g)
		}
	}
}

// TestThisTree holds the checkout itself to the table.
func TestThisTree(t *testing.T) {
	files, err := load("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range table.check(files) {
		t.Error(f)
	}
}
