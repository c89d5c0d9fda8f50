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

// stopTime is the most that VM_STOP may take: seconds of wall clock, for an
// emulated processor under load. What it takes is a few milliseconds.
const stopTime = 3 * time.Second

// stopNow stops the VM, trying again when a signal interrupts the waiting.
func (m *machine) stopNow() {
	m.t.Helper()
	start := time.Now()
	err := m.vm.Stop()
	for errors.Is(err, unix.EINTR) {
		if err = m.vm.Stop(); errors.Is(err, unix.ESHUTDOWN) {
			err = nil
		}
	}
	ok(m.t, err)
	if took := time.Since(start); took > stopTime {
		m.t.Errorf("VM_STOP took %v", took)
	}
}

// TestStopLoop stops a guest that never leaves, and shows that not one more of
// its instructions begins.
func TestStopLoop(t *testing.T) {
	for range 10 {
		m := newMachine(t, withMem)
		m.load(count)
		done := stubborn(m.cpu)
		m.whenCounting()
		m.stopNow()
		at := m.counter()
		wantEnd(t, "RUN of a stopped VM", done, unix.ESHUTDOWN)
		time.Sleep(2 * time.Millisecond)
		if now := m.counter(); now != at {
			t.Errorf("the guest counted on from %d to %d after VM_STOP", at, now)
		}
		m.wantState(abi.VMStateStopped, abi.ReasonOperator)
	}
}

func TestStopHalted(t *testing.T) {
	m := newMachine(t, withMem)
	m.load(out8(outPort, 1), cli, hlt)
	m.wantIO(outPort, 1)
	done := stubborn(m.cpu)
	for {
		if _, err := m.cpu.MPState(); errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	m.stopNow()
	wantEnd(t, "RUN of a stopped VM", done, unix.ESHUTDOWN)
}

// TestStopDeaf stops a vCPU whose thread has every signal blocked.
func TestStopDeaf(t *testing.T) {
	for name, code := range map[string][]byte{"loop": count, "halt": append(append([]byte(nil), count[:5]...), cli[0], hlt[0])} {
		m := newMachine(t, withMem)
		m.load(code)
		done := make(chan error, 1)
		go func() {
			runtime.LockOSThread()
			all, old := unix.Sigset_t{}, unix.Sigset_t{}
			for i := range all.Val {
				all.Val[i] = ^uint64(0)
			}
			if err := unix.PthreadSigmask(unix.SIG_BLOCK, &all, &old); err != nil {
				done <- err
				return
			}
			err := m.cpu.Run()
			done <- errors.Join(err, unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil))
		}()
		m.whenCountedFrom(0) // the guest that halts counts once, perhaps already
		m.stopNow()
		wantEnd(t, "RUN of a deaf thread, "+name, done, unix.ESHUTDOWN)
	}
}

// TestStopNeverRun stops VMs whose vCPUs never ran, and that never had one.
func TestStopNeverRun(t *testing.T) {
	for at := created; at <= withMem; at++ {
		m := newMachine(t, at)
		m.stopNow()
		m.wantState(abi.VMStateStopped, abi.ReasonOperator)
		if m.cpu != nil {
			wantErr(t, "first RUN after VM_STOP", m.cpu.Run(), unix.ESHUTDOWN)
		}
	}
}

// TestStopBetween stops a guest that returned with an unfinished access.
func TestStopBetween(t *testing.T) {
	m := newMachine(t, withMem)
	m.load(in8(outPort))
	if r := m.run(); r.ExitReason != abi.KVMExitIO {
		t.Fatalf("exit reason %d", r.ExitReason)
	}
	m.stopNow()
	wantErr(t, "RUN after VM_STOP", m.cpu.Run(), unix.ESHUTDOWN)
}

// TestStopMany stops a VM with four vCPUs, some running, some not.
func TestStopMany(t *testing.T) {
	m := newMachine(t, withVCPU)
	cpus := []*abi.VCPU{m.cpu, m.newVCPU(1), m.newVCPU(2), m.newVCPU(3)}
	m.memory()
	m.load(count)
	m.start(cpus[1], codeAddr)
	first, second := stubborn(cpus[0]), stubborn(cpus[1])
	m.whenCounting()
	m.stopNow()
	wantEnd(t, "first RUN", first, unix.ESHUTDOWN)
	wantEnd(t, "second RUN", second, unix.ESHUTDOWN)
	for _, c := range cpus[2:] {
		wantErr(t, "RUN of a vCPU that never ran", c.Run(), unix.ESHUTDOWN)
	}
}

// TestStopRaces stops VMs at any moment of their first instructions. However the
// two meet, the run ends and the VM is stopped.
func TestStopRaces(t *testing.T) {
	for i := range 60 {
		m := newMachine(t, withMem)
		m.load(outLoop(outPort))
		done := make(chan error, 1)
		began := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(began)
			for {
				if err := m.cpu.Run(); err != nil && !errors.Is(err, unix.EINTR) {
					done <- err
					return
				}
			}
		}()
		<-began
		for range i * 20 {
			runtime.Gosched()
		}
		m.stopNow()
		wantEnd(t, "RUN", done, unix.ESHUTDOWN)
	}
}

// TestStopTwice gives VM_STOP from two threads: one of them ends the VM.
func TestStopTwice(t *testing.T) {
	m := newMachine(t, withMem)
	m.load(count)
	done := stubborn(m.cpu)
	m.whenCounting()
	errs := make(chan error, 2)
	for range 2 {
		go func() { errs <- m.vm.Stop() }()
	}
	var won int
	for range 2 {
		if err := <-errs; err == nil {
			won++
		} else if !errors.Is(err, unix.ESHUTDOWN) && !errors.Is(err, unix.EINTR) {
			t.Error(err)
		}
	}
	if won > 1 {
		t.Error("both VM_STOP returned 0")
	}
	wantEnd(t, "RUN", done, unix.ESHUTDOWN)
}

// TestDestroyRunning destroys a VM under its runner.
func TestDestroyRunning(t *testing.T) {
	m := newMachine(t, withMem)
	m.load(count)
	done := stubborn(m.cpu)
	m.whenCounting()
	// A signal of the Go runtime ends the wait for the vCPU, and undoes nothing.
	if err := m.vm.Destroy(); !errors.Is(err, unix.EINTR) {
		ok(t, err)
	}
	wantEnd(t, "RUN of a destroyed VM", done, unix.ESHUTDOWN)
	m.wantState(abi.VMStateStopped, abi.ReasonDestroyed)
}
