// SPDX-License-Identifier: Apache-2.0

//go:build lab

package kabi

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// TestMemoryComesAndGoes maps a second slot, lets the guest write to it, and
// takes it away.
func TestMemoryComesAndGoes(t *testing.T) {
	m := newMachine(t, withMem)
	second := pages(t, 8192)
	const at = 0x4_0000
	ok(t, m.vm.MapMemory(region(1, at, second)))
	if got := m.info().Memory; got != memSize+8192 {
		t.Errorf("%d bytes mapped, want %d", got, memSize+8192)
	}
	m.load(store8(0x4000, 0x123, 0x5c), out8(outPort, 1), store8(0x4000, 0x123, 0x5d))
	m.wantIO(outPort, 1)
	if second[0x123] != 0x5c {
		t.Errorf("%#x in memory, want 0x5c", second[0x123])
	}
	ok(t, m.vm.MapMemory(abi.KVMUserspaceMemoryRegion{Slot: 1}))
	if got := m.info().Memory; got != memSize {
		t.Errorf("%d bytes mapped, want %d", got, memSize)
	}
	if r := m.run(); r.ExitReason != abi.KVMExitMMIO || r.MMIO().PhysAddr != at+0x123 {
		t.Errorf("exit reason %d, want an access to nothing at %#x", r.ExitReason, at+0x123)
	}
}

// TestMemoryMoves changes slots in the ways that KVM allows, and counts along.
func TestMemoryMoves(t *testing.T) {
	m := newMachine(t, withMem)
	mem := pages(t, 16<<10)
	ok(t, m.vm.MapMemory(region(7, 1<<20, mem)))
	ok(t, m.vm.MapMemory(region(7, 2<<20, mem)))
	logged := region(7, 2<<20, mem)
	logged.Flags = abi.KVMMemLogDirtyPages
	ok(t, m.vm.MapMemory(logged))
	if got := m.info().Memory; got != memSize+16<<10 {
		t.Errorf("%d bytes mapped, want %d", got, memSize+16<<10)
	}
	wantErr(t, "another size in a used slot", m.vm.MapMemory(region(7, 2<<20, mem[:8192])), unix.EINVAL)
	wantErr(t, "overlap", m.vm.MapMemory(region(8, 2<<20+4096, mem[:4096])), unix.EEXIST)
	if got := m.info().Memory; got != memSize+16<<10 {
		t.Errorf("%d bytes mapped after refusals, want %d", got, memSize+16<<10)
	}
	ok(t, m.vm.MapMemory(abi.KVMUserspaceMemoryRegion{Slot: 7}))
	if err := m.vm.MapMemory(abi.KVMUserspaceMemoryRegion{Slot: 7}); err == nil {
		t.Error("unmapping an empty slot: no error")
	}
}

func TestMemoryRefuses(t *testing.T) {
	m := newMachine(t, withMem)
	mem := pages(t, 8192)
	for _, tt := range []struct {
		name   string
		change func(*abi.KVMUserspaceMemoryRegion)
		want   []error
	}{
		{"odd size", func(r *abi.KVMUserspaceMemoryRegion) { r.MemorySize = 4095 }, []error{unix.EINVAL}},
		{"odd guest address", func(r *abi.KVMUserspaceMemoryRegion) { r.GuestPhysAddr++ }, []error{unix.EINVAL}},
		{"odd address", func(r *abi.KVMUserspaceMemoryRegion) { r.UserspaceAddr++ }, []error{unix.EINVAL}},
		{"address of the kernel", func(r *abi.KVMUserspaceMemoryRegion) { r.UserspaceAddr = 0xffff_8880_0000_0000 }, []error{unix.EINVAL}},
		{"unknown flag", func(r *abi.KVMUserspaceMemoryRegion) { r.Flags = 1 << 30 }, []error{unix.EINVAL}},
		{"guest address that wraps", func(r *abi.KVMUserspaceMemoryRegion) { r.GuestPhysAddr = ^uint64(4095) }, []error{unix.EINVAL}},
		{"size that wraps", func(r *abi.KVMUserspaceMemoryRegion) { r.MemorySize = ^uint64(4095) }, []error{unix.EINVAL, unix.ENOSPC}},
		{"slot of SMM", func(r *abi.KVMUserspaceMemoryRegion) { r.Slot = 1<<16 | 1 }, []error{unix.EINVAL}},
		{"slot beyond all", func(r *abi.KVMUserspaceMemoryRegion) { r.Slot = 0xffff }, []error{unix.EINVAL, unix.ENOSPC}},
	} {
		r := region(3, 1<<20, mem)
		tt.change(&r)
		err := m.vm.MapMemory(r)
		wantOneOf(t, tt.name, err, tt.want...)
	}
	if got := m.info().Memory; got != memSize {
		t.Errorf("%d bytes mapped after refusals, want %d", got, memSize)
	}
}

func wantOneOf(t testing.TB, what string, got error, want ...error) {
	t.Helper()
	for _, w := range want {
		if errors.Is(got, w) {
			return
		}
	}
	t.Errorf("%s: %v, want one of %v", what, got, want)
}

// TestMemoryUnmapped runs a guest whose monitor took the pages away: the run
// ends, and nothing else happens.
func TestMemoryUnmapped(t *testing.T) {
	m := newMachine(t, withMem)
	gone, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	ok(t, err)
	ok(t, m.vm.MapMemory(region(1, 0x4_0000, gone)))
	ok(t, unix.Munmap(gone))
	m.load(store8(0x4000, 0, 1))
	err = runThrough(m.cpu)
	if err == nil && m.cpu.RunArea().ExitReason == abi.KVMExitIO {
		t.Error("the guest wrote to memory that is not there")
	}
	m.wantState(abi.VMStateRunning, abi.ReasonNone)
}
