// SPDX-License-Identifier: Apache-2.0

//go:build lab

package kabi

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// roleEnv makes the test binary play a role as another process. Descriptors of
// the parent begin at 3, and what the child prints are its lines.
const roleEnv = "KABI_ROLE"

var roles = map[string]func() error{
	"monitor":      roleMonitor,
	"monitor-exec": roleMonitorExec,
	"monitor-heir": roleMonitorHeir,
	"sleep":        roleSleep,
	"foreign":      roleForeign,
	"open":         roleOpen,
	"netlink":      roleNetlink,
	"mischief":     roleMischief,
	"hammer":       roleHammer,
	"counter":      roleCounter,
	"disk-keeper":  roleDiskKeeper,
	"vhost-user":   roleVhostUser,
	"watch":        roleWatch,
	"whole-life":   roleWholeLife,
}

func playRole(role string) int {
	f, ok := roles[role]
	if !ok {
		fmt.Fprintln(os.Stderr, "kabi: no role", role)
		return 2
	}
	if err := f(); err != nil {
		fmt.Printf("error: %v\n", err)
		return 1
	}
	return 0
}

// child is a process that plays a role.
type child struct {
	t     testing.TB
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string
	err   bytes.Buffer
}

// startChild starts a role with descriptors from 3 on; change may set more.
func startChild(t testing.TB, role string, fds []int, change func(*exec.Cmd)) *child {
	t.Helper()
	c := &child{t: t, cmd: exec.Command("/proc/self/exe"), lines: make(chan string, 1000)}
	c.cmd.Env = append(os.Environ(), roleEnv+"="+role)
	for _, fd := range fds {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		ok(t, err)
		c.cmd.ExtraFiles = append(c.cmd.ExtraFiles, os.NewFile(uintptr(dup), "extra"))
	}
	if change != nil {
		change(c.cmd)
	}
	var err error
	c.in, err = c.cmd.StdinPipe()
	ok(t, err)
	out, err := c.cmd.StdoutPipe()
	ok(t, err)
	c.cmd.Stderr = &c.err
	ok(t, c.cmd.Start())
	for _, f := range c.cmd.ExtraFiles {
		closeAll(t, f)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(c.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			c.lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		if c.cmd.ProcessState == nil {
			c.kill()
		}
		<-read
	})
	return c
}

// childPatience is how long a child may need for one step: those that never rest
// take 8 s alone, and several times that beside other machines.
const childPatience = 2 * time.Minute

// want waits for a line of the child.
func (c *child) want(line string) {
	c.t.Helper()
	select {
	case got, open := <-c.lines:
		if !open || got != line {
			c.t.Fatalf("the child said %q, want %q; stderr: %s", got, line, c.err.String())
		}
	case <-time.After(childPatience):
		c.t.Fatalf("the child said nothing for %v, want %q", childPatience, line)
	}
}

// rest reads all lines up to the child's end.
func (c *child) rest() []string {
	var lines []string
	for l := range c.lines {
		lines = append(lines, l)
	}
	return lines
}

// wait expects the child to end by itself, with status 0.
func (c *child) wait() {
	c.t.Helper()
	lines := c.rest()
	if err := c.cmd.Wait(); err != nil {
		c.t.Fatalf("child: %v\n%s\n%s", err, strings.Join(lines, "\n"), c.err.String())
	}
}

func (c *child) kill() {
	// It may be gone already, which is what is wanted.
	if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		c.t.Error(err)
	}
	c.rest()
	_ = c.cmd.Wait()
}

// inherited is a VM that the parent passed as descriptor 3.
func inherited() *abi.VM { return abi.NewVM(3) }

// roleWholeLife makes a VM by itself and runs it: all that holds the module is
// this process's.
func roleWholeLife() error {
	d, err := abi.OpenDevice(abi.DevicePath)
	if err != nil {
		return err
	}
	vm, _, err := d.Create(newUUID(), "whole-life")
	if err != nil {
		return err
	}
	cpu, err := boundTo(vm, spin)
	if err != nil {
		return err
	}
	return runForEver(cpu)
}

// boundGuest makes the calling process the monitor of the inherited VM, with one
// vCPU that is about to run code in real mode.
func boundGuest(code []byte) (*abi.VM, *abi.VCPU, error) {
	vm := inherited()
	cpu, err := boundTo(vm, code)
	return vm, cpu, err
}

// boundTo is boundGuest for a VM of the process's own.
func boundTo(vm *abi.VM, code []byte) (*abi.VCPU, error) {
	if err := vm.Bind(); err != nil {
		return nil, err
	}
	cpu, err := vm.CreateVCPU(0)
	if err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(-1, 0, memSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, err
	}
	copy(mem[codeAddr:], code)
	sregs, err := cpu.Sregs()
	if err != nil {
		return nil, err
	}
	sregs.Cs.Base, sregs.Cs.Selector = 0, 0
	return cpu, errors.Join(cpu.MapRun(), vm.MapMemory(region(0, 0, mem)), cpu.SetSregs(&sregs),
		cpu.SetRegs(&abi.KVMRegs{Rip: codeAddr, Rflags: 2}))
}

// runForEver runs a vCPU on a thread of its own until the VM is stopped, and says
// "running" first.
func runForEver(cpu *abi.VCPU) error {
	runtime.LockOSThread()
	fmt.Println("running")
	return runThrough(cpu)
}

// roleMonitor runs a tight loop until it is killed or the VM is stopped.
func roleMonitor() error {
	_, cpu, err := boundGuest(spin)
	if err != nil {
		return err
	}
	if err := runForEver(cpu); !errors.Is(err, unix.ESHUTDOWN) {
		return fmt.Errorf("run: %w", err)
	}
	fmt.Println("shutdown")
	return nil
}

// roleMonitorExec runs a guest once and then becomes another program, keeping
// the VM descriptor open over the exec.
func roleMonitorExec() error {
	_, cpu, err := boundGuest(out8(outPort, 1))
	if err != nil {
		return err
	}
	if err := runThrough(cpu); err != nil {
		return err
	}
	if _, err := unix.FcntlInt(3, unix.F_SETFD, 0); err != nil {
		return err
	}
	if err := os.Setenv(roleEnv, "sleep"); err != nil {
		return err
	}
	fmt.Println("exec")
	return unix.Exec("/proc/self/exe", []string{"kabi"}, os.Environ())
}

// roleMonitorHeir runs a guest with a child of its own that holds duplicates of
// the VM and vCPU descriptors.
func roleMonitorHeir() error {
	vm, cpu, err := boundGuest(spin)
	if err != nil {
		return err
	}
	heir := exec.Command("/proc/self/exe")
	heir.Env = append(os.Environ(), roleEnv+"=sleep")
	heir.Stdin = os.Stdin
	heir.ExtraFiles = []*os.File{os.NewFile(uintptr(vm.FD()), "vm"), os.NewFile(uintptr(cpu.FD()), "vcpu")}
	if err := heir.Start(); err != nil {
		return err
	}
	return runForEver(cpu)
}

// roleSleep stays until the parent closes its standard input.
func roleSleep() error {
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}
