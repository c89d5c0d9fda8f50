// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestListLayout(t *testing.T) {
	l := newList[KVMMSRList, uint32](InfoKVMMSRs, 3)
	l.head().NMSRs = 3
	copy(l.entries(), []uint32{7, 8, 9})
	want := []byte{}
	for _, w := range []uint32{8 + 4 + 12, InfoKVMMSRs, 3, 7, 8, 9} {
		want = binary.LittleEndian.AppendUint32(want, w)
	}
	if got := unsafe.Slice((*byte)(l.arg()), len(want)); !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
	if n := cap(l.entries()); n != 3 {
		t.Errorf("entries reach over %d, want 3", n)
	}
}

func TestEmptyLists(t *testing.T) {
	if n := len(newList[KVMIRQRouting, KVMIRQRoutingEntry](0, 0).entries()); n != 0 {
		t.Errorf("%d entries, want 0", n)
	}
	l := newList[none, byte](RegsXsave, xsaveMin)
	if size := (*Payload)(l.arg()).Size; size != 8+xsaveMin {
		t.Errorf("size %d, want %d", size, 8+xsaveMin)
	}
}

func TestPacketHasNoHole(t *testing.T) {
	var p packet[KVMSregs]
	if off := unsafe.Offsetof(p.body); off != 8 {
		t.Errorf("payload at %d, want 8", off)
	}
}

// TestClosed shows that a closed descriptor answers, and never names another.
func TestClosed(t *testing.T) {
	fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	v := NewVM(fd)
	if _, err := v.Info(); !errors.Is(err, unix.ENOTTY) {
		t.Errorf("info on /dev/null: %v, want ENOTTY", err)
	}
	for range 2 {
		if err := v.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	if _, err := v.Info(); !errors.Is(err, unix.EBADF) {
		t.Errorf("info after close: %v, want EBADF", err)
	}
	var e *Error
	if err := v.Stop(); !errors.As(err, &e) || e.Op != "vm-stop" {
		t.Errorf("stop after close: %v, want an Error of vm-stop", err)
	}
	if v.FD() != -1 {
		t.Errorf("number %d after close", v.FD())
	}
}

func TestCreateName(t *testing.T) {
	d := NewDevice(closed)
	if _, _, err := d.Create([16]byte{1}, string(make([]byte, NameLen))); !errors.Is(err, unix.EINVAL) {
		t.Errorf("name of %d bytes: %v, want EINVAL", NameLen, err)
	}
	if _, err := OpenDevice("/nonexistent"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("open: %v, want ENOENT", err)
	}
}

// TestNoGarbage holds the paths that run all day to no allocation.
func TestNoGarbage(t *testing.T) {
	c := NewVCPU(closed)
	v := NewVM(closed)
	regs := KVMRegs{}
	for name, f := range map[string]func() error{
		"run":    c.Run,
		"lookup": func() error { _, errno := v.once(IOCVMSignal, nil); return errno },
	} {
		if n := testing.AllocsPerRun(100, func() {
			if !errors.Is(f(), unix.EBADF) {
				t.Error(name, "did not return EBADF")
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	// One for the error, none for the payload.
	if n := testing.AllocsPerRun(100, func() { _ = c.SetRegs(&regs) }); n > 1 {
		t.Errorf("set regs: %v allocations, want 1 for its error", n)
	}
}

func TestIOData(t *testing.T) {
	c := &VCPU{area: make([]byte, 8192)}
	io := c.RunArea().IO()
	*io = RunIO{Size: 2, Count: 3, DataOffset: 4096}
	if got := len(c.IOData()); got != 6 {
		t.Errorf("%d bytes, want 6", got)
	}
	for _, bad := range []RunIO{
		{Size: 1, Count: 1, DataOffset: 8192},
		{Size: 4, Count: 1, DataOffset: ^uint64(0)},
		{Size: 255, Count: ^uint32(0), DataOffset: 4096},
	} {
		*io = bad
		if c.IOData() != nil {
			t.Errorf("%+v: data outside the run area", bad)
		}
	}
	if (&VCPU{}).IOData() != nil || (&VCPU{}).RunArea() != nil {
		t.Error("a run area before MapRun")
	}
}

func TestRoutes(t *testing.T) {
	e := RouteMSI(24, 0x1_fee0_0000, 0x4041)
	if e.GSI != 24 || e.Type != KVMIRQRouteMSI || e.U[0] != 0x1_fee0_0000 || e.U[1] != 0x4041 {
		t.Errorf("msi route %+v", e)
	}
	e = RouteIRQChip(4, KVMIRQChipIOAPIC, 5)
	if e.GSI != 4 || e.Type != KVMIRQRouteIRQChip || e.U[0] != 5<<32|KVMIRQChipIOAPIC {
		t.Errorf("chip route %+v", e)
	}
}
