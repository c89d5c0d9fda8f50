// SPDX-License-Identifier: Apache-2.0

package boot_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"vmctl/abi"
	"vmctl/monitor/acpi"
	"vmctl/monitor/boot"
	"vmctl/monitor/mem"
)

var order = binary.LittleEndian

const (
	payloadSize = 64 << 10
	kernelAddr  = 16 << 20
	initSize    = 1 << 20
)

// image is a bzImage of the smallest kind: one setup sector and a payload.
func image() []byte {
	b := make([]byte, 2*512+payloadSize)
	b[0x1f1] = 1
	b[0x201] = 0x66
	copy(b[0x202:], "HdrS")
	order.PutUint16(b[0x206:], 0x020f)
	b[0x211] = 1
	order.PutUint32(b[0x22c:], 0x7fffffff)
	order.PutUint32(b[0x230:], 0x200000)
	b[0x234] = 1
	order.PutUint16(b[0x236:], 1)
	order.PutUint32(b[0x238:], 2047)
	order.PutUint64(b[0x258:], kernelAddr)
	order.PutUint32(b[0x260:], initSize)
	copy(b[2*512:], "payload")
	return b
}

func parse(b []byte) (*boot.Kernel, error) {
	return boot.ParseKernel(bytes.NewReader(b), int64(len(b)))
}

func TestBadKernels(t *testing.T) {
	for _, c := range []struct {
		name string
		bend func(b []byte) []byte
		want error
	}{
		{"empty", func([]byte) []byte { return nil }, boot.ErrNotKernel},
		{"one sector", func(b []byte) []byte { return b[:512] }, boot.ErrNotKernel},
		{"no magic", func(b []byte) []byte { b[0x202] = 0; return b }, boot.ErrNotKernel},
		{"old", func(b []byte) []byte { order.PutUint16(b[0x206:], 0x020b); return b }, boot.ErrOldKernel},
		{"zImage", func(b []byte) []byte { b[0x211] = 0; return b }, boot.ErrNot64Bit},
		{"32 bits", func(b []byte) []byte { b[0x236] = 0; return b }, boot.ErrNot64Bit},
		{"short header", func(b []byte) []byte { b[0x201] = 0x10; return b }, boot.ErrKernelHeader},
		{"long header", func(b []byte) []byte { b[0x201] = 0xff; return b }, boot.ErrKernelHeader},
		{"setup only", func(b []byte) []byte { return b[:2*512] }, boot.ErrCutKernel},
		{"setup beyond the file", func(b []byte) []byte { b[0x1f1] = 255; return b }, boot.ErrCutKernel},
		{"no alignment", func(b []byte) []byte { order.PutUint32(b[0x230:], 0); return b }, boot.ErrKernelHeader},
		{"odd alignment", func(b []byte) []byte { order.PutUint32(b[0x230:], 3); return b }, boot.ErrKernelHeader},
		{"unaligned", func(b []byte) []byte { b[0x258] = 1; return b }, boot.ErrKernelHeader},
		{"at zero", func(b []byte) []byte { order.PutUint64(b[0x258:], 0); return b }, boot.ErrKernelHeader},
		{"at the top", func(b []byte) []byte { order.PutUint64(b[0x258:], 0xffffffffffe00000); return b }, boot.ErrKernelHeader},
		{"init size below the file", func(b []byte) []byte { order.PutUint32(b[0x260:], 100); return b }, boot.ErrKernelHeader},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := parse(c.bend(image())); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func machine(t *testing.T, size uint64) (*mem.Memory, boot.Image) {
	t.Helper()
	m, err := mem.New(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	k, err := parse(image())
	if err != nil {
		t.Fatal(err)
	}
	tables, err := acpi.New(acpi.Reduced, 1, acpi.Base)
	if err != nil {
		t.Fatal(err)
	}
	return m, boot.Image{Kernel: k, Cmdline: "console=ttyS0", Tables: tables}
}

func at(t *testing.T, m *mem.Memory, addr, n uint64) []byte {
	t.Helper()
	b, err := m.At(addr, n)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestLoad(t *testing.T) {
	m, im := machine(t, 5<<30)
	im.Initrd, im.InitrdSize = strings.NewReader("initrd"), 6
	entry, err := im.Load(m)
	if err != nil || entry.Regs.Rip != kernelAddr+0x200 {
		t.Fatalf("entry %#x, %v", entry.Regs.Rip, err)
	}
	if got := at(t, m, kernelAddr, 7); string(got) != "payload" {
		t.Errorf("at the kernel's address: %q", got)
	}
	zero := at(t, m, 0x7000, 4096)
	if string(zero[0x202:0x206]) != "HdrS" || zero[0x210] != 0xff || order.Uint64(zero[0x70:]) != acpi.Base {
		t.Error("boot_params without header, loader or RSDP")
	}
	initrd := uint64(order.Uint32(zero[0x218:]))
	if initrd != 0x7ffff000 || order.Uint32(zero[0x21c:]) != 6 || string(at(t, m, initrd, 6)) != "initrd" {
		t.Errorf("initrd at %#x of %d bytes", initrd, order.Uint32(zero[0x21c:]))
	}
	if got := at(t, m, uint64(order.Uint32(zero[0x228:])), 14); string(got) != "console=ttyS0\x00" {
		t.Errorf("command line %q", got)
	}
	if string(at(t, m, acpi.Base, 8)) != "RSD PTR " {
		t.Error("no RSDP")
	}
	if got := at(t, m, 0xffff0, 6); !bytes.Equal(got, []byte{0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee}) {
		t.Errorf("firmware %x", got)
	}
	// The map has all RAM but for the hole below 1 MiB.
	var ram uint64
	for i := range int(zero[0x1e8]) {
		if e := zero[0x2d0+i*20:]; order.Uint32(e[16:]) == 1 {
			ram += order.Uint64(e[8:])
		}
	}
	if want := uint64(5<<30 - 1<<20 + 0x9fc00); ram != want {
		t.Errorf("map has %#x bytes of RAM, want %#x", ram, want)
	}
}

func TestPageTablesMapOneToOne(t *testing.T) {
	m, im := machine(t, 64<<20)
	if _, err := im.Load(m); err != nil {
		t.Fatal(err)
	}
	entry := func(table, i uint64) uint64 { return order.Uint64(at(t, m, table+i*8, 8)) }
	for _, addr := range []uint64{0, kernelAddr, 0xfee00000, 4<<30 - 1} {
		pdpt := entry(0x9000, addr>>39) &^ 0xfff
		pd := entry(pdpt, addr>>30&511) &^ 0xfff
		if page := entry(pd, addr>>21&511); page != addr&^(2<<20-1)|0x83 {
			t.Errorf("%#x is mapped by %#x", addr, page)
		}
	}
}

func TestWhatDoesNotFit(t *testing.T) {
	m, im := machine(t, 16<<20)
	if err := im.Check(m); !errors.Is(err, boot.ErrKernelTooBig) {
		t.Errorf("kernel: %v", err)
	}
	m, im = machine(t, 32<<20)
	im.Initrd, im.InitrdSize = strings.NewReader(""), 15<<20
	if err := im.Check(m); err != nil {
		t.Errorf("initrd that just fits: %v", err)
	}
	for _, size := range []int64{15<<20 + 1, 32 << 20, 1 << 62, -1} {
		im.InitrdSize = size
		if _, err := im.Load(m); !errors.Is(err, boot.ErrInitrdTooBig) {
			t.Errorf("initrd of %d bytes: %v", size, err)
		}
	}
	im.Initrd, im.Cmdline = nil, strings.Repeat("x", 2048)
	if err := im.Check(m); !errors.Is(err, boot.ErrCmdline) {
		t.Errorf("command line: %v", err)
	}
}

func TestFilesThatShrink(t *testing.T) {
	m, im := machine(t, 64<<20)
	im.Initrd, im.InitrdSize = strings.NewReader("short"), 4096
	if _, err := im.Load(m); !errors.Is(err, boot.ErrCutKernel) {
		t.Errorf("initrd: %v", err)
	}
}

func TestRegisters(t *testing.T) {
	m, im := machine(t, 64<<20)
	entry, err := im.Load(m)
	if err != nil {
		t.Fatal(err)
	}
	s := abi.KVMSregs{ApicBase: 0xfee00900}
	entry.Set(&s)
	if s.Cs.L != 1 || s.Cs.Db != 0 || s.Ss.Db != 1 || s.Efer != 0x500 || s.Cr0&(1<<31|1) != 1<<31|1 || s.ApicBase != 0xfee00900 {
		t.Errorf("%+v", s)
	}
	if r := entry.Regs; r.Rip != kernelAddr+0x200 || r.Rsi != 0x7000 || r.Rflags != 2 {
		t.Errorf("%+v", r)
	}
	var lapic abi.KVMLAPICState
	order.PutUint32(lapic.Regs[0x350:], 1<<16)
	boot.SetLINT(&lapic)
	if a, b := order.Uint32(lapic.Regs[0x350:]), order.Uint32(lapic.Regs[0x360:]); a != 0x700 || b != 0x400 {
		t.Errorf("LINT %#x %#x", a, b)
	}
}

func FuzzKernel(f *testing.F) { fuzzKernels(f, image()[:2048]) }

// fuzzKernels loads what is parsed from files like some.
func fuzzKernels(f *testing.F, files ...[]byte) {
	for _, b := range files {
		f.Add(b)
	}
	m, err := mem.New(64 << 20)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { m.Close() })
	tables, err := acpi.New(acpi.Reduced, 1, acpi.Base)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := parse(b)
		if err != nil {
			return
		}
		im := boot.Image{Kernel: k, Tables: tables, Initrd: bytes.NewReader(b), InitrdSize: int64(len(b))}
		fits := im.Check(m)
		if _, err := im.Load(m); (err == nil) != (fits == nil) {
			t.Fatalf("Check says %v, Load says %v", fits, err)
		}
	})
}
