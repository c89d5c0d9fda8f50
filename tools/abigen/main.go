// SPDX-License-Identifier: Apache-2.0

// Command abigen makes the Go side of the kernel interface from abi/vmm.h:
//
//	abi/zabi_linux_amd64.go      constants and structures
//	abi/zlayout_test.go          the list of structures that the layout test walks
//	abi/layout.golden            every value, size and offset
//
// It wants to be run in the folder of package abi, which go generate does. Types
// come from cgo -godefs; what KVM structures look like comes from
// tools/abigen/linux/kvm.h, not from the host, so that the output is the same on
// every machine.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	header := flag.String("header", "vmm.h", "the interface")
	include := flag.String("include", "../tools/abigen", "folder with linux/kvm.h")
	out := flag.String("out", ".", "folder to write to")
	flag.Parse()
	if err := run(*header, *include, *out); err != nil {
		fmt.Fprintln(os.Stderr, "abigen:", err)
		os.Exit(1)
	}
}

// run makes all three files, and writes none of them unless all could be made.
func run(header, include, out string) error {
	var syms symbols
	for _, path := range []string{header, filepath.Join(include, "linux", "kvm.h")} {
		if err := syms.scan(path); err != nil {
			return err
		}
	}
	if err := syms.name(); err != nil {
		return err
	}
	raw, err := godefs(&syms, header, include)
	if err != nil {
		return err
	}
	source, layout, err := rewrite(&syms, raw)
	if err != nil {
		return err
	}
	list, err := layoutList(&syms)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(out, "zabi_linux_amd64.go"), source, 0o644),
		os.WriteFile(filepath.Join(out, "zlayout_test.go"), list, 0o644),
		os.WriteFile(filepath.Join(out, "layout.golden"), layout, 0o644),
	)
}
