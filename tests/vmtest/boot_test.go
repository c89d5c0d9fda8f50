// SPDX-License-Identifier: Apache-2.0

//go:build lab

package vmtest_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"vmctl/abi"
	"vmctl/monitor/console/proto"
	"vmctl/monitor/ctl"
	"vmctl/tests/vmtest"
)

// prompt is what the lab's guest prints when its shell is there.
const prompt = "vmctl-guest: init reached"

func boot(t *testing.T, c vmtest.Config) (*vmtest.VMX, *vmtest.Screen) {
	t.Helper()
	v, s := vmtest.Boot(t, c)
	s.Expect(prompt)
	return v, s
}

// memTotal is what the guest says it has, in MiB.
func memTotal(t *testing.T, s *vmtest.Screen) int {
	t.Helper()
	fields := strings.Fields(s.Run("grep MemTotal /proc/meminfo"))
	if len(fields) < 2 {
		t.Fatalf("no MemTotal: %q", fields)
	}
	kib, err := strconv.Atoi(fields[1])
	if err != nil {
		t.Fatal(err)
	}
	return kib >> 10
}

// TestOneGuest looks at one guest from all sides that leave it as it was, and ends
// with the death of its monitor. A boot is what takes time here.
func TestOneGuest(t *testing.T) {
	v, s := boot(t, vmtest.Config{})
	if e := vmtest.Event[*ctl.ConsoleOpened](v); e.User != "writer" || e.Address != "test" || e.Mode != ctl.ReadWrite {
		t.Errorf("event %+v", e)
	}
	for _, c := range []struct {
		name string
		test func(*testing.T, *vmtest.VMX, *vmtest.Screen)
	}{
		{"private memory", testPrivateMemory}, // of a monitor that did nothing but boot
		{"one CPU", testOneCPU},
		{"power button", testPowerButton},
		{"console", testConsole},
		{"control is taken up again", testControlIsTakenUpAgain},
		{"killed monitor", testKilledMonitor}, // the last
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, v, s) })
	}
}

func testOneCPU(t *testing.T, v *vmtest.VMX, s *vmtest.Screen) {
	if got := s.Run("echo $((6*7))"); got != "42" {
		t.Errorf("6*7 is %q", got)
	}
	if got := s.Run("nproc"); got != "1" {
		t.Errorf("nproc is %q", got)
	}
	if mib := memTotal(t, s); mib < 190 || mib > 256 {
		t.Errorf("%d MiB of 256", mib)
	}
	if v.Info().State != abi.VMStateRunning {
		t.Errorf("the kernel says %v", v.Info().State)
	}
}

func TestFourCPUsAndMemoryAboveTheGap(t *testing.T) {
	v, s := boot(t, vmtest.Config{VCPUs: 4, Memory: 5 << 30})
	if got := s.Run("nproc"); got != "4" {
		t.Errorf("nproc is %q", got)
	}
	if mib := memTotal(t, s); mib < 4900 || mib > 5120 {
		t.Errorf("%d MiB of 5120", mib)
	}
	t.Run("jail", func(t *testing.T) { testJail(t, v) })
}

// Pressing the power button is an interrupt of the generic event device. What
// follows from it is the guest's, which has no driver for buttons.
func testPowerButton(t *testing.T, v *vmtest.VMX, s *vmtest.Screen) {
	const count = "grep -i GED /proc/interrupts | awk '{print $2}'"
	before := s.Run(count)
	if err := v.Client.PowerButton(v.Context()); err != nil {
		t.Fatal(err)
	}
	if after := s.Run(count); before != "0" || after != "1" {
		t.Errorf("%q interrupts before, %q after", before, after)
	}
}

// privateBudget is what an idle monitor may hold beside its guest's memory, in KiB.
const privateBudget = 5 << 10

// private is what a monitor holds beside its guest's memory, in KiB, and how much
// of that is pages of its program, which the monitors of a host share.
func private(t *testing.T, v *vmtest.VMX) (all, program int) {
	t.Helper()
	var guest, file bool
	for line := range strings.Lines(proc(t, v, "smaps")) {
		f := strings.Fields(line)
		switch {
		case len(f) > 1 && strings.Contains(f[0], "-"):
			guest, file = false, strings.HasSuffix(f[len(f)-1], "/vmx")
		case f[0] == "Size:":
			guest = f[1] == strconv.Itoa(256<<10)
		case !guest && (f[0] == "Private_Clean:" || f[0] == "Private_Dirty:"):
			n, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			all += n
			if file && f[0] == "Private_Clean:" {
				program += n
			}
		}
	}
	return all, program
}

// A monitor is small when its guest has booted, and again when many have looked at
// its console.
func testPrivateMemory(t *testing.T, v *vmtest.VMX, s *vmtest.Screen) {
	small(t, v, s, "booted")
	for range 2 {
		var late []*vmtest.Screen
		for range proto.MaxViewers - 1 {
			l := v.View("late", ctl.ReadOnly)
			l.Expect(prompt)
			late = append(late, l)
		}
		for _, l := range late {
			l.Close()
		}
		for range late {
			vmtest.Event[*ctl.ConsoleClosed](v)
		}
	}
	small(t, v, s, "looked at")
}

// small waits until a monitor has given back what it does not use, which it does ever later.
func small(t *testing.T, v *vmtest.VMX, s *vmtest.Screen, when string) {
	t.Helper()
	all, program := private(t, v)
	for deadline := time.Now().Add(2 * time.Minute); all > privateBudget && time.Now().Before(deadline); {
		s.Run("sleep 1")
		all, program = private(t, v)
	}
	t.Logf("%s: %d KiB, of which %d KiB are the program", when, all, program)
	if all > privateBudget || program < 500 || all-program < 500 {
		t.Errorf("%s: the monitor holds %d KiB, %d KiB of the program; at most %d", when, all, program, privateBudget)
	}
}

// vmlinux makes the ELF of the kernel that is packed in a bzImage.
func vmlinux(t *testing.T) (path string) {
	t.Helper()
	const setupSects, payloadOffset, payloadLength, sector, sizeLen = 0x1f1, 0x248, 0x24c, 512, 4
	b := read(t, vmtest.Kernel)
	start := (int(b[setupSects])+1)*sector + int(order.Uint32(b[payloadOffset:]))
	packed := b[start:][:order.Uint32(b[payloadLength:])-sizeLen]
	program := "zstd"
	if bytes.HasPrefix(packed, []byte("\xfd7zXZ")) {
		program = "xz"
	}
	path = filepath.Join(t.TempDir(), "vmlinux")
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	unpack := exec.Command(program, "-qdc")
	unpack.Stdin, unpack.Stdout, unpack.Stderr = bytes.NewReader(packed), out, os.Stderr
	if err := unpack.Run(); err != nil {
		t.Fatalf("%s: %v", program, err)
	}
	return path
}

// A kernel as it was linked is entered by PVH's rules, with all it gets of a bzImage's, and
// again after a reset.
func TestPVH(t *testing.T) {
	const loader = "176" // what Linux calls it then
	v, s := boot(t, vmtest.Config{Kernel: vmlinux(t), VCPUs: 2, Cmdline: "console=ttyS0 panic=-1 quiet pvh=yes"})
	for resets := range 2 {
		if resets > 0 {
			s.Type("reboot -f\n")
			vmtest.Event[*ctl.GuestReset](v)
			s.Expect(prompt)
		}
		if got := s.Run("nproc; cat /proc/sys/kernel/bootloader_type; grep -o pvh=yes /proc/cmdline"); got != "2\n"+loader+"\npvh=yes" {
			t.Errorf("the guest says %q", got)
		}
		if mib := memTotal(t, s); mib < 190 || mib > 256 {
			t.Errorf("%d MiB of 256", mib)
		}
	}
	s.Type("poweroff -f\n")
	end(t, v, abi.ReasonPoweroff)
}
