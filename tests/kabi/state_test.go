// SPDX-License-Identifier: Apache-2.0

//go:build lab

package kabi

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// TestStates gives every command in every state that does not allow it.
func TestStates(t *testing.T) {
	for at := created; at <= destroyed; at++ {
		t.Run(at.String(), func(t *testing.T) {
			m := newMachine(t, at)
			for _, c := range commands() {
				if c.on == onDevice || c.on == onVCPU && m.cpu == nil {
					continue
				}
				want := stateError(c, at)
				if want == nil {
					continue // TestValid, and what follows, show these
				}
				wantErr(t, c.name, m.give(c, nil), want)
			}
		})
	}
}

// stateError is what vmm.h says about a command in a state.
func stateError(c command, at stage) error {
	switch {
	case slices.Contains(c.also, at) || slices.Contains(c.also, running) && at == withMem:
		return nil
	case at >= stopped:
		return unix.ESHUTDOWN
	}
	return unix.EBUSY
}

// TestAllowedLater gives the commands that work in more states than one there.
func TestAllowedLater(t *testing.T) {
	for _, c := range commands() {
		for _, at := range []stage{running, stopped} {
			if at == c.at || !slices.Contains(c.also, at) || c.req == abi.IOCVMSetup {
				continue
			}
			m := newMachine(t, at)
			if at == stopped && m.cpu == nil && c.on == onVCPU {
				t.Fatal("a stopped machine without vCPU")
			}
			wantErr(t, c.name+", "+at.String(), m.give(c, nil), nil)
		}
	}
}

// TestStoppedForGood shows what a stopped VM still answers.
func TestStoppedForGood(t *testing.T) {
	m := newMachine(t, running)
	ok(t, m.vm.Stop())
	m.wantState(abi.VMStateStopped, abi.ReasonOperator)
	wantErr(t, "second VM_STOP", m.vm.Stop(), unix.ESHUTDOWN)
	wantErr(t, "VCPU_RUN", m.cpu.Run(), unix.ESHUTDOWN)
	wantErr(t, "VCPU_KICK", m.cpu.Kick(), unix.ESHUTDOWN)
	wantErr(t, "VM_REPORT", m.vm.Report(abi.ReasonPoweroff, [4]uint64{}), unix.ESHUTDOWN)
	if r, err := m.cpu.Regs(); err != nil || r.Rip < codeAddr {
		t.Errorf("registers of a stopped vCPU: rip %#x, %v", r.Rip, err)
	}
	wantErr(t, "SET_REGS", m.cpu.SetRegs(&abi.KVMRegs{}), unix.ESHUTDOWN)
	if stop, err := m.vm.Poll(0); err != nil || !stop {
		t.Errorf("poll: stopped %v, %v", stop, err)
	}
	ok(t, m.vm.Destroy())
	m.wantState(abi.VMStateStopped, abi.ReasonOperator)
	wantErr(t, "second VM_DESTROY", m.vm.Destroy(), unix.ESHUTDOWN)
}

// TestDestroy takes VMs of every state out of the inventory.
func TestDestroy(t *testing.T) {
	for at := created; at <= stopped; at++ {
		m := newMachine(t, at)
		want := abi.ReasonDestroyed
		if at == stopped {
			want = abi.ReasonOperator
		}
		ok(t, m.vm.Destroy())
		m.wantState(abi.VMStateStopped, want)
		_, err := m.dev.Open(m.id, abi.RightObserve)
		wantErr(t, "VM_OPEN after destroy", err, unix.ENOENT)
		_, err = m.vm.Delegate(abi.RightObserve)
		wantErr(t, "VM_DELEGATE after destroy", err, unix.ESHUTDOWN)
	}
}

// TestOrder shows that all vCPUs come before the first memory.
func TestOrder(t *testing.T) {
	m := newMachine(t, bound)
	wantErr(t, "VM_MAP_MEMORY without vCPU", m.vm.MapMemory(region(0, 0, pages(t, 4096))), unix.EBUSY)
	m = newMachine(t, withMem)
	_, err := m.vm.CreateVCPU(1)
	wantErr(t, "VCPU_CREATE after memory", err, unix.EBUSY)
	ok(t, m.vm.MapMemory(abi.KVMUserspaceMemoryRegion{}))
	_, err = m.vm.CreateVCPU(1)
	wantErr(t, "VCPU_CREATE after memory came and went", err, unix.EBUSY)
}

// TestPoll sees the VM's end from a descriptor that may only observe.
func TestPoll(t *testing.T) {
	m := newMachine(t, withMem)
	watch, err := m.vm.Delegate(abi.RightObserve)
	ok(t, err)
	defer closeAll(t, watch)
	if stop, err := watch.Poll(0); err != nil || stop {
		t.Errorf("poll of a live VM: stopped %v, %v", stop, err)
	}
	seen := make(chan error, 1)
	go func() {
		_, err := watch.Poll(10_000)
		seen <- err
	}()
	ok(t, m.vm.Stop())
	ok(t, <-seen)
	if stop, err := watch.Poll(0); err != nil || !stop {
		t.Errorf("poll after VM_STOP: stopped %v, %v", stop, err)
	}
}
