// SPDX-License-Identifier: Apache-2.0

package main

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"vmctl/tools/lab/cpio"
	"vmctl/tools/lab/wire"
)

// machineInitrd writes the machine's initramfs into memory: the kernel's
// archive of modules, then this very program as /init, and the module under
// test if there is one.
func machineInitrd(st *starter, mod *module) (*os.File, error) {
	fd, err := unix.MemfdCreate("lab-initrd", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("initramfs: %w", err)
	}
	f := os.NewFile(uintptr(fd), "lab-initrd")
	if err := writeInitrd(f, st, mod); err != nil {
		f.Close()
		return nil, fmt.Errorf("initramfs: %w", err)
	}
	return f, nil
}

func writeInitrd(out io.Writer, st *starter, mod *module) error {
	if st.modules != "" {
		b, err := os.ReadFile(st.modules)
		if err != nil {
			return err
		}
		if _, err := out.Write(b); err != nil {
			return err
		}
	}
	w := cpio.NewWriter(out)
	// The kernel opens it before there is a /dev.
	if err := w.CharDevice("dev/console", 0o600, 5, 1); err != nil {
		return err
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	if err := w.File("init", 0o755, self); err != nil {
		return err
	}
	if mod != nil {
		if err := w.File(strings.TrimPrefix(wire.ModuleFile, "/"), 0o644, mod.data); err != nil {
			return err
		}
	}
	return w.Close()
}

// wantStatic refuses to go on if this program could not be an /init.
func wantStatic() error {
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("this lab is linked dynamically and cannot run in its machine: build it with CGO_ENABLED=0")
		}
	}
	return nil
}
