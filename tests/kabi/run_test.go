// SPDX-License-Identifier: Apache-2.0

//go:build lab

package kabi

import (
	"errors"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

func TestRunOut(t *testing.T) {
	m := newMachine(t, withMem)
	m.load(out8(outPort, 0x42), out8(outPort, 0x43), hlt)
	if i := m.info(); i.State != abi.VMStateBound {
		t.Errorf("state %v before the first RUN, want bound", i.State)
	}
	m.wantIO(outPort, 0x42)
	m.wantState(abi.VMStateRunning, abi.ReasonNone)
	m.wantIO(outPort, 0x43)
	r, err := m.cpu.Regs()
	ok(t, err)
	// The access is completed by the next RUN.
	if want := uint64(codeAddr + 8); r.Rip != want && r.Rip != want-2 {
		t.Errorf("rip %#x, want %#x", r.Rip, want)
	}
}

func TestRunIn(t *testing.T) {
	m := newMachine(t, withMem)
	m.load(in8(outPort))
	if r := m.run(); r.ExitReason != abi.KVMExitIO || r.IO().Direction != abi.KVMExitIOIn {
		t.Fatalf("exit reason %d %+v, want a port read", r.ExitReason, *r.IO())
	}
	m.cpu.IOData()[0] = 0x5a
	m.wantIO(outPort+1, 0x5a)
}

func TestRunMMIO(t *testing.T) {
	m := newMachine(t, withMem)
	const addr = 0x2_0010 // beyond the memory
	m.load(store8(0x2000, 0x10, 0x77), load8(0x2000, 0x20, outPort))
	r := m.run()
	mmio := r.MMIO()
	if r.ExitReason != abi.KVMExitMMIO || mmio.PhysAddr != addr || mmio.Len != 1 || mmio.IsWrite != 1 || mmio.Data[0] != 0x77 {
		t.Fatalf("exit reason %d %+v, want a write of 0x77 at %#x", r.ExitReason, *mmio, addr)
	}
	r = m.run()
	if r.ExitReason != abi.KVMExitMMIO || mmio.PhysAddr != addr+0x10 || mmio.IsWrite != 0 {
		t.Fatalf("exit reason %d %+v, want a read at %#x", r.ExitReason, *mmio, addr+0x10)
	}
	mmio.Data[0] = 0x99
	m.wantIO(outPort, 0x99)
}

// TestRunHlt runs a guest without interrupt chips: HLT is the monitor's.
func TestRunHlt(t *testing.T) {
	m := newMachine(t, bound)
	m.cpu = m.newVCPU(0)
	ok(t, m.cpu.MapRun())
	m.memory()
	m.load(hlt)
	if r := m.run(); r.ExitReason != abi.KVMExitHLT {
		t.Errorf("exit reason %d, want HLT", r.ExitReason)
	}
}

func TestRunTripleFault(t *testing.T) {
	m := newMachine(t, withMem)
	m.load(tripleFault)
	if r := m.run(); r.ExitReason != abi.KVMExitShutdown {
		t.Errorf("exit reason %d, want SHUTDOWN", r.ExitReason)
	}
	// What that means is the monitor's to say.
	m.wantState(abi.VMStateRunning, abi.ReasonNone)
}

func TestImmediateExit(t *testing.T) {
	m := newMachine(t, withMem)
	m.load(out8(outPort, 1))
	m.cpu.RunArea().ImmediateExit = 1
	for range 3 {
		wantErr(t, "RUN with immediate_exit", m.cpu.Run(), unix.EINTR)
	}
	m.cpu.RunArea().ImmediateExit = 0
	m.wantIO(outPort, 1)
}

// TestKickNext shows that a kick waits for the next RUN, and is one kick.
func TestKickNext(t *testing.T) {
	m := newMachine(t, withMem)
	m.load(outLoop(outPort))
	for range 5 {
		ok(t, m.cpu.Kick())
	}
	wantErr(t, "RUN after kicks", m.cpu.Run(), unix.EINTR)
	// A signal of the Go runtime may come between, but not each time.
	interrupted := 0
	for range 20 {
		if err := m.cpu.Run(); errors.Is(err, unix.EINTR) {
			interrupted++
		} else {
			ok(t, err)
		}
	}
	if interrupted > 3 {
		t.Errorf("%d more interrupted runs: kicks add up", interrupted)
	}
	ok(t, m.cpu.Kick())
	wantErr(t, "RUN after another kick", m.cpu.Run(), unix.EINTR)
	m.wantIO(outPort, 1)
}

// runner runs a vCPU on a thread of its own and tells what came back.
func runner(c *abi.VCPU) <-chan error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- c.Run()
	}()
	return done
}

// stubborn runs a vCPU on a thread of its own as a monitor does: a signal of the
// Go runtime does not end it.
func stubborn(c *abi.VCPU) <-chan error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := c.Run()
		for errors.Is(err, unix.EINTR) {
			err = c.Run()
		}
		done <- err
	}()
	return done
}

// whenCounting waits until the guest of the loop count is at it.
func (m *machine) whenCounting() {
	m.t.Helper()
	m.whenCountedFrom(m.counter())
}

// whenCountedFrom waits until a guest has counted on from start, once at least.
func (m *machine) whenCountedFrom(start uint32) {
	m.t.Helper()
	for end := time.Now().Add(20 * time.Second); m.counter() == start; {
		if time.Now().After(end) {
			m.t.Fatal("the guest does not run")
		}
		time.Sleep(time.Millisecond)
	}
}

// wantEnd waits for a runner to come back.
func wantEnd(t testing.TB, what string, done <-chan error, want error) {
	t.Helper()
	select {
	case err := <-done:
		wantErr(t, what, err, want)
	case <-time.After(20 * time.Second):
		t.Fatalf("%s: did not come back in 20 s", what)
	}
}

func TestKickRunning(t *testing.T) {
	m := newMachine(t, withMem)
	m.load(count)
	for range 5 {
		done := runner(m.cpu)
		m.whenCounting()
		ok(t, m.cpu.Kick())
		wantEnd(t, "kicked RUN", done, unix.EINTR)
	}
	m.wantState(abi.VMStateRunning, abi.ReasonNone)
}

// TestKickHalted kicks a vCPU that waits for an interrupt inside the kernel.
func TestKickHalted(t *testing.T) {
	m := newMachine(t, withMem)
	m.load(out8(outPort, 1), cli, hlt)
	m.wantIO(outPort, 1)
	done := runner(m.cpu)
	for {
		if s, err := m.cpu.Info(); err != nil || s.State != abi.VMStateRunning {
			t.Fatalf("state %v, %v", s.State, err)
		}
		if _, err := m.cpu.MPState(); errors.Is(err, unix.EBUSY) {
			break // it is inside
		}
		time.Sleep(time.Millisecond)
	}
	ok(t, m.cpu.Kick())
	wantEnd(t, "kicked HLT", done, unix.EINTR)
}

// TestOneRunner shows that a second thread in RUN is refused, and so are
// registers while the first one runs.
func TestOneRunner(t *testing.T) {
	m := newMachine(t, withMem)
	m.load(count)
	done := runner(m.cpu)
	m.whenCounting()
	wantErr(t, "second RUN", m.cpu.Run(), unix.EBUSY)
	for _, c := range vcpuCommands() {
		if c.head && c.req == abi.IOCVCPUGetRegs {
			wantErr(t, c.name+" while running", m.give(c, nil), unix.EBUSY)
		}
	}
	wantErr(t, "SET_REGS while running", m.cpu.SetRegs(&abi.KVMRegs{}), unix.EBUSY)
	ok(t, m.cpu.Kick())
	wantEnd(t, "kicked RUN", done, unix.EINTR)
	_, err := m.cpu.Regs()
	ok(t, err)
}

// TestSignal shows that a signal ends a run without ending anything else.
func TestSignal(t *testing.T) {
	m := newMachine(t, withMem)
	m.load(count)
	tid := make(chan int, 1)
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		tid <- unix.Gettid()
		done <- m.cpu.Run()
	}()
	m.whenCounting()
	ok(t, unix.Tgkill(unix.Getpid(), <-tid, unix.SIGURG))
	wantEnd(t, "RUN with a signal", done, unix.EINTR)
	m.wantState(abi.VMStateRunning, abi.ReasonNone)
}

// TestManyVCPUs runs several vCPUs at once, each in its own loop.
func TestManyVCPUs(t *testing.T) {
	m := newMachine(t, withVCPU)
	cpus := []*abi.VCPU{m.cpu}
	for i := range uint32(3) {
		c := m.newVCPU(i + 1)
		ok(t, c.MapRun())
		cpus = append(cpus, c)
	}
	m.memory()
	copy(m.mem[codeAddr:], outLoop(outPort))
	for _, c := range cpus {
		m.start(c, codeAddr)
	}
	done := make(chan error, len(cpus))
	for _, c := range cpus {
		go func() {
			runtime.LockOSThread()
			for range 200 {
				if err := runThrough(c); err != nil {
					done <- err
					return
				}
				if r := c.RunArea(); r.ExitReason != abi.KVMExitIO {
					done <- errors.New("not a port access")
					return
				}
			}
			done <- nil
		}()
	}
	for range cpus {
		ok(t, <-done)
	}
	if n := m.info().VCPUs; n != 4 {
		t.Errorf("%d vCPUs, want 4", n)
	}
}

// TestRunAllocates holds the run path to no garbage.
func TestRunAllocates(t *testing.T) {
	m := newMachine(t, withMem)
	m.load(outLoop(outPort))
	if n := testing.AllocsPerRun(500, func() { _ = m.cpu.Run() }); n != 0 {
		t.Errorf("%v allocations for a run", n)
	}
}
