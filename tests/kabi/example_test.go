// SPDX-License-Identifier: Apache-2.0

//go:build lab

package kabi

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// The program of vmm(4), and what it boots: the machine's own kernel and the
// initramfs of nested guests. Paths are those of the checkout.
const (
	exampleProgram = "build/test/boot"
	exampleKernel  = "/boot/vmlinuz"
	exampleInitrd  = "build/guest/initrd.img"
	exampleMarker  = "vmctl-guest: init reached"
	examplePrompt  = "guest# "
)

// example runs a program until the test ends, at the most.
func example(t *testing.T, program string, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, program, args...)
	stderr := &bytes.Buffer{}
	cmd.Stderr = stderr
	return cmd, stderr
}

// public copies a file to where every user can read and run it.
func public(t *testing.T, path string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "public")
	ok(t, err)
	t.Cleanup(func() { ok(t, os.RemoveAll(dir)) })
	ok(t, os.Chmod(dir, 0o755))
	content, err := os.ReadFile(path)
	ok(t, err)
	copied := filepath.Join(dir, filepath.Base(path))
	ok(t, os.WriteFile(copied, content, 0o755))
	return copied
}

// member is nobody, in the group that has the device.
func member(t *testing.T) *syscall.SysProcAttr {
	t.Helper()
	var device unix.Stat_t
	ok(t, unix.Stat(abi.DevicePath, &device))
	const nobody = 65534
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody, Groups: []uint32{device.Gid}}}
}

// TestExampleBoots boots Linux with the program, without any privilege but the
// device's group, types into its shell, and sees the events that the manual
// promises.
func TestExampleBoots(t *testing.T) {
	f, err := dialFamily()
	ok(t, err)
	defer func() { ok(t, f.close()) }()
	ok(t, f.join())
	cmd, stderr := example(t, public(t, exampleProgram), public(t, exampleKernel), public(t, exampleInitrd))
	cmd.SysProcAttr = member(t)
	in, err := cmd.StdinPipe()
	ok(t, err)
	out, err := cmd.StdoutPipe()
	ok(t, err)
	ok(t, cmd.Start())
	start := time.Now()
	text := readUntil(t, out, exampleMarker) + readUntil(t, out, examplePrompt)
	t.Logf("init reached, and a prompt, after %v", time.Since(start).Round(10*time.Millisecond))
	_, err = in.Write([]byte("reboot -f\n"))
	ok(t, err)
	rest, err := io.ReadAll(out)
	ok(t, err)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s%s%s", err, text, rest, stderr)
	}
	want := []abi.Event{abi.EventCreated, abi.EventBound, abi.EventRunning, abi.EventStopped, abi.EventDestroyed}
	for _, event := range want {
		vms, err := f.next(5 * time.Second)
		ok(t, err)
		vm := vms[0]
		if vm.event != event || vm.name != "boot" {
			t.Fatalf("event %v of %s, want %v", vm.event, vm.name, event)
		}
		if event == abi.EventStopped && (vm.reason != abi.ReasonPoweroff || vm.exitData[0] != uint64(abi.KVMExitIO)) {
			t.Errorf("stopped by %v, data %x", vm.reason, vm.exitData)
		}
	}
}

// readUntil reads up to the end of a text.
func readUntil(t *testing.T, r io.Reader, end string) string {
	t.Helper()
	var text []byte
	for b := make([]byte, 1); !bytes.HasSuffix(text, []byte(end)); text = append(text, b[0]) {
		if _, err := io.ReadFull(r, b); err != nil {
			t.Fatalf("no %q: %v\n%s", end, err, text)
		}
	}
	return string(text)
}

// TestExampleRefuses gives the program what it cannot boot.
func TestExampleRefuses(t *testing.T) {
	kernel, err := os.ReadFile(exampleKernel)
	ok(t, err)
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		ok(t, os.WriteFile(path, content, 0o600))
		return path
	}
	missing := filepath.Join(dir, "missing")
	old := bytes.Clone(kernel[:4096])
	binary.LittleEndian.PutUint16(old[0x206:], 0x0209)
	// A kernel of 16 bytes that begins with ud2: no handler is there, so the
	// processor shuts down.
	entry := (int(kernel[0x1f1]) + 1) * 512
	crash := bytes.Clone(kernel[:entry+16])
	binary.LittleEndian.PutUint32(crash[0x1f4:], 1)
	copy(crash[entry:], []byte{0x0f, 0x0b})
	for _, c := range []struct {
		name, want string
		args       []string
	}{
		{"no argument", "usage", nil},
		{"too many", "usage", []string{exampleKernel, exampleInitrd, exampleInitrd}},
		{"no kernel", missing + ": No such file", []string{missing}},
		{"folder", ": Is a directory", []string{dir}},
		{"empty", "not a bzImage", []string{file("empty", nil)}},
		{"initramfs", "not a bzImage", []string{exampleInitrd}},
		{"old", "not a bzImage", []string{file("old", old)}},
		{"head alone", "shorter than its header says", []string{file("head", kernel[:4096])}},
		{"cut", "shorter than its header says", []string{file("cut", kernel[:len(kernel)/2])}},
		{"no initramfs", missing + ": No such file", []string{exampleKernel, missing}},
		{"crash", "exit reason is 8", []string{file("crash", crash)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd, stderr := example(t, exampleProgram, c.args...)
			out, err := cmd.Output()
			if cmd.ProcessState.ExitCode() != 1 || len(out) > 0 || !strings.Contains(stderr.String(), c.want) {
				t.Errorf("%v, output %q, error %q; want status 1 and %q", err, out, stderr, c.want)
			}
		})
	}
}
