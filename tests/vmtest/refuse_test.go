// SPDX-License-Identifier: Apache-2.0

//go:build lab

package vmtest_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vmctl/abi"
	"vmctl/monitor/ctl"
	"vmctl/monitor/spec"
	"vmctl/tests/vmtest"
)

// file makes a file of size bytes that begins with text.
func file(t *testing.T, text string, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

// Each is refused with its code, and the process ends.
func TestWhatCannotBeConfigured(t *testing.T) {
	cut := func(t *testing.T) string {
		b, err := os.ReadFile(vmtest.Kernel)
		if err != nil {
			t.Fatal(err)
		}
		return file(t, string(b[:8192]), 8192)
	}
	for _, c := range []struct {
		name   string
		config func(t *testing.T) vmtest.Config
		want   ctl.Code
	}{
		{"empty kernel", func(t *testing.T) vmtest.Config { return vmtest.Config{Kernel: file(t, "", 0)} }, ctl.BootFileInvalid},
		{"kernel of text", func(t *testing.T) vmtest.Config { return vmtest.Config{Kernel: file(t, "#!/bin/sh", 1<<20)} }, ctl.BootFileInvalid},
		{"ELF without an entry", func(t *testing.T) vmtest.Config { return vmtest.Config{Kernel: file(t, "\x7fELF\x02\x01\x01", 1<<20)} }, ctl.BootFileInvalid},
		{"half a kernel header", func(t *testing.T) vmtest.Config { return vmtest.Config{Kernel: cut(t)} }, ctl.BootFileInvalid},
		{"kernel that is a folder", func(t *testing.T) vmtest.Config { return vmtest.Config{Kernel: t.TempDir()} }, ctl.BootFileInvalid},
		{"kernel that is a device", func(t *testing.T) vmtest.Config { return vmtest.Config{Kernel: "/dev/zero"} }, ctl.BootFileInvalid},
		{"initrd larger than memory", func(t *testing.T) vmtest.Config {
			return vmtest.Config{Initrd: file(t, "", 300<<20)}
		}, ctl.InitrdTooLarge},
		{"kernel larger than memory", func(*testing.T) vmtest.Config { return vmtest.Config{Memory: 16 << 20} }, ctl.KernelTooLarge},
		{"no memory to speak of", func(*testing.T) vmtest.Config { return vmtest.Config{Memory: 4096} }, ctl.MemoryInvalid},
		{"odd memory", func(*testing.T) vmtest.Config { return vmtest.Config{Memory: 256<<20 + 1} }, ctl.MemoryInvalid},
		{"too much memory", func(*testing.T) vmtest.Config { return vmtest.Config{Memory: 2 << 40} }, ctl.MemoryInvalid},
		{"too many vcpus", func(*testing.T) vmtest.Config { return vmtest.Config{VCPUs: 65} }, ctl.VCPUsInvalid},
		{"long command line", func(*testing.T) vmtest.Config {
			return vmtest.Config{Cmdline: strings.Repeat("x", 2048)}
		}, ctl.CmdlineTooLong},
		{"disk of no sector", func(t *testing.T) vmtest.Config {
			return vmtest.Config{Disks: []vmtest.Disk{{Path: file(t, "", 511)}}}
		}, ctl.DiskInvalid},
		{"disk that nobody attached", func(*testing.T) vmtest.Config {
			return vmtest.Config{Disks: []vmtest.Disk{{}}}
		}, ctl.DiskInvalid},
		{"identity of a disk that is too long", func(t *testing.T) vmtest.Config {
			return vmtest.Config{Disks: []vmtest.Disk{{Path: file(t, "", 512), ID: "more than twenty bytes"}}}
		}, ctl.DiskInvalid},
		{"qcow2 that is none", image(func(t *testing.T) string { return file(t, "QFI", 1<<20) }), ctl.FormatInvalid},
		{"qcow2 that is cut", image(func(t *testing.T) string { return file(t, string(topImage[:100]), 100) }), ctl.FormatInvalid},
		{"qcow2 that is encrypted", image(func(t *testing.T) string {
			b := bytes.Clone(baseImage)
			b[35] = 2
			return file(t, string(b), int64(len(b)))
		}), ctl.FormatRefused},
		{"qcow2 without its backing file", image(func(t *testing.T) string { return file(t, string(topImage), int64(len(topImage))) }), ctl.BackingInvalid},
		{"qcow2 to write to", func(t *testing.T) vmtest.Config {
			return vmtest.Config{Disks: []vmtest.Disk{{Path: file(t, string(baseImage), int64(len(baseImage))), Format: spec.QCOW2}}}
		}, ctl.DiskInvalid},
		{"NUL in the command line", func(*testing.T) vmtest.Config { return vmtest.Config{Cmdline: "a\x00b"} }, ctl.CmdlineInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := vmtest.Start(t)
			err := v.Configure(c.config(t))
			var refused *ctl.Error
			if !errors.As(err, &refused) || refused.Code != c.want || refused.Text == "" {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if state := v.Info().State; state == abi.VMStateRunning {
				t.Errorf("the kernel says %v", state)
			}
		})
	}
}

// image is a VM with a qcow2 image to read.
func image(path func(t *testing.T) string) func(t *testing.T) vmtest.Config {
	return func(t *testing.T) vmtest.Config {
		return vmtest.Config{Disks: []vmtest.Disk{{Path: path(t), ReadOnly: true, Format: spec.QCOW2}}}
	}
}

func TestDescriptorsThatAreNone(t *testing.T) {
	v := vmtest.Start(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	kernel, err := os.Open(vmtest.Kernel)
	if err != nil {
		t.Fatal(err)
	}
	defer kernel.Close()
	_, err = v.Client.Call(v.Context(), ctl.Configure{Spec: vmtest.Spec()}, int(null.Fd()))
	if !errors.Is(err, &ctl.Error{Code: ctl.DescriptorWrong}) {
		t.Errorf("one descriptor: %v", err)
	}
	v = vmtest.Start(t)
	err = v.Client.Configure(v.Context(), vmtest.Spec(), int(null.Fd()), int(kernel.Fd()), -1, -1)
	if !errors.Is(err, &ctl.Error{Code: ctl.DescriptorWrong}) {
		t.Errorf("a VM that is none: %v", err)
	}
	if got := v.Wait(); got != abi.ReasonInternalError {
		t.Errorf("exit status %v", got)
	}
}

func TestRequestsInTheWrongState(t *testing.T) {
	v := vmtest.Start(t)
	for _, m := range []ctl.Message{ctl.Start{}, ctl.Reset{}, ctl.PowerButton{}} {
		if _, err := v.Client.Call(v.Context(), m); !errors.Is(err, &ctl.Error{Code: ctl.StateConflict}) {
			t.Errorf("%T: %v", m, err)
		}
	}
	if err := v.Configure(vmtest.Config{}); err != nil {
		t.Fatal(err)
	}
	if err := v.Client.Reset(v.Context()); !errors.Is(err, &ctl.Error{Code: ctl.StateConflict}) {
		t.Errorf("reset before start: %v", err)
	}
	if err := v.Client.Configure(v.Context(), vmtest.Spec(), 0, 0, -1, -1); !errors.Is(err, &ctl.Error{Code: ctl.StateConflict}) {
		t.Errorf("second configure: %v", err)
	}
}
