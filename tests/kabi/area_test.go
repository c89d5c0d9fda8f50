// SPDX-License-Identifier: Apache-2.0

//go:build lab

package kabi

import (
	"testing"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// The run area: what can be mapped, and how long it lives.

func TestAreaBounds(t *testing.T) {
	m := newMachine(t, withVCPU)
	size, err := m.cpu.RunSize()
	ok(t, err)
	if size < 4096 || size%4096 != 0 {
		t.Fatalf("run area of %d bytes", size)
	}
	for _, tt := range []struct {
		name         string
		fd           int
		offset       int64
		length, prot int
	}{
		{"on a VM descriptor", m.vm.FD(), 0, size, unix.PROT_READ},
		{"on the device", m.dev.FD(), 0, size, unix.PROT_READ},
		{"too long", m.cpu.FD(), 0, size + 1<<20, unix.PROT_READ},
		{"far out", m.cpu.FD(), 1 << 30, 4096, unix.PROT_READ},
	} {
		area, err := unix.Mmap(tt.fd, tt.offset, tt.length, tt.prot, unix.MAP_SHARED)
		if err == nil {
			t.Errorf("mmap %s: no error", tt.name)
			ok(t, unix.Munmap(area))
		}
	}
}

// TestAreaKeeps reads and writes the area after all descriptors are closed, and
// shows that the mapping keeps the VM.
func TestAreaKeeps(t *testing.T) {
	d := openDevice(t)
	vm, id, err := d.Create(newUUID(), "area")
	ok(t, err)
	ok(t, vm.Bind())
	cpu, err := vm.CreateVCPU(0)
	ok(t, err)
	size, err := cpu.RunSize()
	ok(t, err)
	area, err := unix.Mmap(cpu.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	ok(t, err)
	watch, err := vm.Delegate(abi.RightObserve)
	ok(t, err)
	closeAll(t, cpu, vm)
	for i := range area[:4096] {
		area[i]++
	}
	// The run descriptor is closed for good, which stops the VM.
	if i, err := watch.Info(); err != nil || i.State != abi.VMStateStopped || i.Reason != abi.ReasonMonitorGone {
		t.Errorf("state %v reason %v, %v", i.State, i.Reason, err)
	}
	closeAll(t, watch)
	ok(t, unix.Munmap(area))
	_, err = d.Open(id, abi.RightObserve)
	wantErr(t, "VM_OPEN after the last reference", err, unix.ENOENT)
}

// TestAreaParts maps the area in pieces and unmaps the middle one.
func TestAreaParts(t *testing.T) {
	m := newMachine(t, withMem)
	m.load(outLoop(outPort))
	size, err := m.cpu.RunSize()
	ok(t, err)
	area, err := unix.Mmap(m.cpu.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	ok(t, err)
	_, _, errno := unix.Syscall(unix.SYS_MUNMAP, uintptr(addressOf(area))+4096, 4096, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	m.wantIO(outPort, 1)
	if got := fromBytes[abi.KVMRun](area[:4096]); got.ExitReason != abi.KVMExitIO {
		t.Errorf("exit reason %d in the first page", got.ExitReason)
	}
	ok(t, unix.Munmap(area))
}
