// SPDX-License-Identifier: Apache-2.0

//go:build lab

package kabi

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// rung reads how often an eventfd was signalled.
func rung(t testing.TB, fd int) uint64 {
	t.Helper()
	var b [8]byte
	if _, err := unix.Read(fd, b[:]); err == unix.EAGAIN {
		return 0
	} else if err != nil {
		t.Fatal(err)
	}
	return binary.LittleEndian.Uint64(b[:])
}

// TestDoorbellMMIO rings from a guest without leaving the kernel.
func TestDoorbellMMIO(t *testing.T) {
	m := newMachine(t, withMem)
	any, match := eventFD(t), eventFD(t)
	const base = 0x2_0000
	ok(t, m.vm.MapMMIO(abi.KVMIOEventFD{Addr: base, Len: 4, FD: int32(any)}))
	ok(t, m.vm.MapMMIO(abi.KVMIOEventFD{
		Addr: base + 8, Len: 4, FD: int32(match), DataMatch: 5, Flags: abi.KVMIOEventFDFlagDataMatch,
	}))
	m.load(storeLong(0x2000, 0, 77), storeLong(0x2000, 8, 5), storeLong(0x2000, 8, 6))
	r := m.run()
	if mmio := r.MMIO(); r.ExitReason != abi.KVMExitMMIO || mmio.PhysAddr != base+8 || mmio.Data[0] != 6 {
		t.Fatalf("exit reason %d %+v, want the write of 6 that nothing matches", r.ExitReason, *mmio)
	}
	if n := rung(t, any); n != 1 {
		t.Errorf("the doorbell rang %d times, want 1", n)
	}
	if n := rung(t, match); n != 1 {
		t.Errorf("the matching doorbell rang %d times, want 1", n)
	}
}

func TestDoorbellPIO(t *testing.T) {
	m := newMachine(t, withMem)
	bell := eventFD(t)
	door := abi.KVMIOEventFD{Addr: outPort, Len: 1, FD: int32(bell), Flags: abi.KVMIOEventFDFlagPIO}
	ok(t, m.vm.MapMMIO(door))
	m.load(out8(outPort, 1), out8(outPort, 2), out8(outPort+1, 3), out8(outPort, 4))
	m.wantIO(outPort+1, 3)
	if n := rung(t, bell); n != 2 {
		t.Errorf("rang %d times, want 2", n)
	}
	wantErr(t, "the same again", m.vm.MapMMIO(door), unix.EEXIST)
	door.Flags |= abi.KVMIOEventFDFlagDeassign
	ok(t, m.vm.MapMMIO(door))
	m.wantIO(outPort, 4)
	wantErr(t, "taken away twice", m.vm.MapMMIO(door), unix.ENOENT)
}

func TestDoorbellRefuses(t *testing.T) {
	m := newMachine(t, withMem)
	bell := eventFD(t)
	for _, tt := range []struct {
		name string
		door abi.KVMIOEventFD
		want error
	}{
		{"unknown flag", abi.KVMIOEventFD{Addr: 1 << 20, Len: 4, FD: int32(bell), Flags: 1 << 3}, unix.EINVAL},
		{"all flags", abi.KVMIOEventFD{Addr: 1 << 20, Len: 4, FD: int32(bell), Flags: ^uint32(0)}, unix.EINVAL},
		{"length 3", abi.KVMIOEventFD{Addr: 1 << 20, Len: 3, FD: int32(bell)}, unix.EINVAL},
		{"address that wraps", abi.KVMIOEventFD{Addr: ^uint64(0), Len: 8, FD: int32(bell)}, unix.EINVAL},
		{"no descriptor", abi.KVMIOEventFD{Addr: 1 << 20, Len: 4, FD: -1}, unix.EBADF},
		{"not an eventfd", abi.KVMIOEventFD{Addr: 1 << 20, Len: 4, FD: int32(m.vm.FD())}, unix.EINVAL},
	} {
		wantErr(t, tt.name, m.vm.MapMMIO(tt.door), tt.want)
	}
}
