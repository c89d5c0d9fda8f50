// SPDX-License-Identifier: Apache-2.0

//go:build lab

package kabi

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// What other processes may do with descriptors that are not theirs.

// TestForeign passes the descriptors of a running VM to another process and
// gives every command there.
func TestForeign(t *testing.T) {
	m := newMachine(t, running)
	c := startChild(t, "foreign", []int{m.vm.FD(), m.cpu.FD()}, nil)
	for _, cmd := range commands() {
		if cmd.on == onDevice || cmd.right == abi.RightControl {
			continue
		}
		if cmd.bare {
			fmt.Fprintf(c.in, "%d %d -\n", cmd.on, cmd.req)
		} else {
			fmt.Fprintf(c.in, "%d %d %s\n", cmd.on, cmd.req, hex.EncodeToString(cmd.arg(m)))
		}
		want := unix.Errno(0)
		if cmd.name == "GET_INFO kvm extension" {
			want = unix.EIO // KVM answers its monitor alone
		}
		// Those of the run section, and of vCPUs.
		if cmd.right == abi.RightRun || cmd.on == onVCPU {
			want = unix.EIO
		}
		if cmd.req == abi.IOCVMBind {
			want = unix.EBUSY
		}
		line, open := <-c.lines
		if want == unix.EIO && cmd.req == abi.IOCVMSetup || cmd.req == abi.IOCVCPUCreate {
			// Not in this state either: both answers are true.
			if line == unix.EBUSY.Error() {
				continue
			}
		}
		if !open || line != want.Error() {
			t.Errorf("%s in another process: %q, want %q", cmd.name, line, want.Error())
		}
	}
	ok(t, c.in.Close())
	c.wait()
	m.wantState(abi.VMStateRunning, abi.ReasonNone)
	_, err := m.cpu.Regs()
	ok(t, err)
}

// roleForeign gives the commands that its input names to descriptors 3 (VM) and 4
// (vCPU), and prints what came back.
func roleForeign() error {
	for s := bufio.NewScanner(os.Stdin); s.Scan(); {
		var on, req int
		var text string
		if _, err := fmt.Sscanf(s.Text(), "%d %d %s", &on, &req, &text); err != nil {
			return err
		}
		var addr uintptr
		var arg []byte
		if text != "-" {
			var err error
			if arg, err = hex.DecodeString(text); err != nil {
				return err
			}
			addr = uintptr(addressOf(arg))
		}
		fd := 3
		if kind(on) == onVCPU {
			fd = 4
		}
		got := unix.Errno(0)
		_, err := ioctlAt(fd, uintptr(req), addr)
		if err != nil {
			errors.As(err, &got)
		} else if req == abi.IOCVMDelegate {
			if err := unix.Close(int(fromBytes[abi.VMDelegate](arg).FD)); err != nil {
				return err
			}
		}
		fmt.Println(got.Error())
	}
	return nil
}

// asNobody makes a child run without privileges.
func asNobody(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
}

// asRootElsewhere makes a child root of a user namespace of its own, which is
// nobody outside.
func asRootElsewhere(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 65534, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 65534, Size: 1}},
		Credential:  &syscall.Credential{},
	}
}

// TestOpenRights shows who gains rights by VM_OPEN: the creator's user, and the
// host's root.
func TestOpenRights(t *testing.T) {
	m := newMachine(t, created)
	for name, who := range map[string]func(*exec.Cmd){"nobody": asNobody, "root of a namespace": asRootElsewhere} {
		c := startChild(t, "open", []int{m.dev.FD()}, who)
		fmt.Fprintln(c.in, m.id)
		c.want(unix.EPERM.Error())
		line := <-c.lines // the number of a VM of its own, which it may open
		var id uint64
		if _, err := fmt.Sscanf(line, "own %d", &id); err != nil {
			t.Fatalf("%s said %q: %v", name, line, err)
		}
		theirs, err := m.dev.Open(id, abi.RightAll)
		ok(t, err)
		if i, err := theirs.Info(); err != nil || i.Owner != 65534 {
			t.Errorf("%s: owner %d, %v", name, i.Owner, err)
		}
		closeAll(t, theirs)
		ok(t, c.in.Close())
		c.wait()
	}
}

// roleOpen opens the VM that its input names through descriptor 3, and then one
// of its own.
func roleOpen() error {
	d := abi.NewDevice(3)
	in := bufio.NewReader(os.Stdin)
	var id uint64
	if _, err := fmt.Fscanln(in, &id); err != nil {
		return err
	}
	_, err := d.Open(id, abi.RightObserve)
	var errno unix.Errno
	errors.As(err, &errno)
	fmt.Println(errno.Error())
	vm, own, err := d.Create(newUUID(), "own")
	if err != nil {
		return err
	}
	again, err := d.Open(own, abi.RightAll)
	if err != nil {
		return err
	}
	i, err := vm.Info()
	if err != nil || int(i.Owner) != os.Getuid() {
		return fmt.Errorf("owner %d as this process sees it, want %d, %w", i.Owner, os.Getuid(), err)
	}
	fmt.Println("own", own)
	_, err = in.ReadString('\n')
	return errors.Join(vm.Close(), again.Close(), ignoreEOF(err))
}

func ignoreEOF(err error) error {
	if err != nil && strings.Contains(err.Error(), "EOF") {
		return nil
	}
	return err
}

// TestFdinfo reads what every descriptor says about itself.
func TestFdinfo(t *testing.T) {
	m := newMachine(t, running)
	for what, fd := range map[string]int{"device": m.dev.FD(), "VM": m.vm.FD(), "vCPU": m.cpu.FD()} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
		ok(t, err)
		t.Logf("%s:\n%s", what, text)
		if what == "device" {
			continue
		}
		for _, want := range []string{fmt.Sprintf("vmm-id:\t%d\n", m.id), fmt.Sprintf("vmm-state:\t%d\n", abi.VMStateRunning)} {
			if !strings.Contains(string(text), want) {
				t.Errorf("no %q in the fdinfo of a %s", want, what)
			}
		}
	}
}

// TestNothingRaw looks at what the process has open: nothing of KVM's.
func TestNothingRaw(t *testing.T) {
	before := openFiles()
	newMachine(t, running)
	for n, name := range openFiles() {
		if strings.Contains(name, "kvm") && before[n] != name {
			t.Errorf("descriptor %s is %s", n, name)
		}
	}
}
