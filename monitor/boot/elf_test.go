// SPDX-License-Identifier: Apache-2.0

package boot_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"vmctl/abi"
	"vmctl/monitor/acpi"
	"vmctl/monitor/boot"
)

// Where elf has what.
const (
	elfHeads = 64
	elfNotes = 512
	elfCode  = 1024
	elfEntry = kernelAddr + 16
)

// elf is a kernel of two segments, of which the second has memory behind what is in the
// file, with the note that names its entry behind one of another's.
func elf() []byte {
	b := make([]byte, 4096)
	copy(b, "\x7fELF\x02\x01\x01")
	order.PutUint16(b[18:], 62)
	order.PutUint64(b[32:], elfHeads)
	order.PutUint16(b[54:], 56)
	order.PutUint16(b[56:], 3)
	for i, s := range [][]uint64{ // kind, offset, virtual and physical address, bytes, memory
		{1, elfCode, 0xffffffff81000000, kernelAddr, 1024, 1024},
		{1, elfCode + 1024, 0xffffffff82000000, kernelAddr + 4096, 512, 1 << 20},
		{4, elfNotes, 0, 0, 48, 48},
	} {
		for k, v := range s {
			order.PutUint64(b[elfHeads+56*i+8*k:], v)
		}
	}
	n := order.AppendUint32(nil, 4)
	n = order.AppendUint32(n, 5)
	n = order.AppendUint32(n, 18)
	n = append(n, "GNU\x0012345\x00\x00\x00"...)
	n = order.AppendUint32(n, 4)
	n = order.AppendUint32(n, 8)
	n = order.AppendUint32(n, 18)
	n = append(n, "Xen\x00"...)
	n = order.AppendUint64(n, elfEntry)
	copy(b[elfNotes:], n)
	copy(b[elfCode:], "code")
	copy(b[elfCode+1024:], "data")
	return b
}

// elf32 is the same in a file of 32 bits.
func elf32() []byte {
	b := elf()
	b[4] = 1
	order.PutUint16(b[18:], 3)
	order.PutUint32(b[28:], elfHeads)
	order.PutUint16(b[42:], 32)
	order.PutUint16(b[44:], 3)
	long := bytes.Clone(b[elfHeads:][:3*56])
	for i := range 3 {
		s := b[elfHeads+32*i:]
		for k, from := range []int{0, 8, 16, 24, 32, 40} {
			order.PutUint32(s[4*k:], order.Uint32(long[56*i+from:]))
		}
	}
	return b
}

func TestBadELFs(t *testing.T) {
	const first, second, notes = elfHeads, elfHeads + 56, elfHeads + 2*56
	long := func(at int, v uint64) func([]byte) {
		return func(b []byte) { order.PutUint64(b[at:], v) }
	}
	for _, c := range []struct {
		name string
		bend func(b []byte)
		want error
	}{
		{"big endian", func(b []byte) { b[5] = 2 }, boot.ErrKernelHeader},
		{"another processor", func(b []byte) { order.PutUint16(b[18:], 183) }, boot.ErrKernelHeader},
		{"no class", func(b []byte) { b[4] = 0 }, boot.ErrKernelHeader},
		{"odd headers", func(b []byte) { order.PutUint16(b[54:], 57) }, boot.ErrKernelHeader},
		{"many headers", func(b []byte) { order.PutUint16(b[56:], 0xffff) }, boot.ErrKernelHeader},
		{"no headers", func(b []byte) { order.PutUint16(b[56:], 0) }, boot.ErrNoEntry},
		{"headers across the end", long(32, 4096-56), boot.ErrCutKernel},
		{"headers far behind the end", long(32, 1<<64-56), boot.ErrCutKernel},
		{"segment across the end", long(first+8, 4096-1023), boot.ErrCutKernel},
		{"segment far behind the end", long(first+8, 1<<64-512), boot.ErrCutKernel},
		{"long segment", long(first+32, 1<<63), boot.ErrCutKernel},
		{"less memory than bytes", long(first+40, 1023), boot.ErrKernelHeader},
		{"memory beyond all", long(second+40, 1<<64-1), boot.ErrKernelHeader},
		{"in low memory", long(first+24, 0x7000), boot.ErrKernelHeader},
		{"high", long(second+24, 1<<32), boot.ErrKernelHeader},
		{"overlapping", long(second+24, kernelAddr+1023), boot.ErrKernelHeader},
		{"descending", long(second+24, kernelAddr-4096), boot.ErrKernelHeader},
		{"no notes", long(notes, 6), boot.ErrNoEntry},
		{"long notes", func(b []byte) { order.PutUint32(b[elfNotes:], 0xffffffff) }, boot.ErrNoEntry},
		{"cut notes", long(notes+32, 47), boot.ErrNoEntry},
		{"short entry", func(b []byte) { order.PutUint32(b[elfNotes+24+4:], 3) }, boot.ErrNoEntry},
		{"entry outside", func(b []byte) { order.PutUint32(b[elfNotes+24+16:], kernelAddr+1024) }, boot.ErrKernelHeader},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := elf()
			c.bend(b)
			if _, err := parse(b); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestLoadELF(t *testing.T) {
	for name, file := range map[string][]byte{"64 bits": elf(), "32 bits": elf32()} {
		t.Run(name, func(t *testing.T) {
			m, im := machine(t, 5<<30)
			var err error
			if im.Kernel, err = parse(file); err != nil {
				t.Fatal(err)
			}
			im.Initrd, im.InitrdSize = strings.NewReader("initrd"), 6
			entry, err := im.Load(m)
			if err != nil || entry.Regs.Rip != elfEntry || entry.Regs.Rbx != 0x7000 || entry.Regs.Rflags != 2 {
				t.Fatalf("entry %+v, %v", entry.Regs, err)
			}
			if code, data := at(t, m, kernelAddr, 4), at(t, m, kernelAddr+4096, 4); string(code) != "code" || string(data) != "data" {
				t.Errorf("in memory are %q and %q", code, data)
			}
			s := abi.KVMSregs{ApicBase: 0xfee00900, Cr0: 1 << 31, Efer: 0x500, Cr4: 1 << 5}
			entry.Set(&s)
			if s.Cs.L != 0 || s.Cs.Db != 1 || s.Ss.Db != 1 || s.Efer != 0 || s.Cr0 != 0x11 || s.Cr4 != 0 || s.Tr.Limit != 0x67 || s.ApicBase != 0xfee00900 {
				t.Errorf("%+v", s)
			}
			info := at(t, m, 0x7000, 56)
			for i, want := range []uint32{0x336ec578, 1, 0, 1} {
				if got := order.Uint32(info[4*i:]); got != want {
					t.Errorf("word %d is %#x, want %#x", i, got, want)
				}
			}
			module := at(t, m, order.Uint64(info[16:]), 32)
			if addr, size := order.Uint64(module), order.Uint64(module[8:]); size != 6 || string(at(t, m, addr, 6)) != "initrd" {
				t.Errorf("initrd at %#x of %d bytes", addr, size)
			}
			if got := at(t, m, order.Uint64(info[24:]), 14); string(got) != "console=ttyS0\x00" {
				t.Errorf("command line %q", got)
			}
			if order.Uint64(info[32:]) != acpi.Base || string(at(t, m, acpi.Base, 8)) != "RSD PTR " {
				t.Error("no RSDP")
			}
			var ram uint64
			for i := range uint64(order.Uint32(info[48:])) {
				if e := at(t, m, order.Uint64(info[40:])+24*i, 24); order.Uint32(e[16:]) == 1 {
					ram += order.Uint64(e[8:])
				}
			}
			if want := uint64(5<<30 - 1<<20 + 0x9fc00); ram != want {
				t.Errorf("map has %#x bytes of RAM, want %#x", ram, want)
			}
		})
	}
}

// What it needs beside what is in the file must fit, too; without an initrd there is no
// module.
func TestELFThatDoesNotFit(t *testing.T) {
	m, im := machine(t, 17<<20)
	var err error
	if im.Kernel, err = parse(elf()); err != nil {
		t.Fatal(err)
	}
	if err := im.Check(m); !errors.Is(err, boot.ErrKernelTooBig) {
		t.Errorf("kernel: %v", err)
	}
	m, _ = machine(t, 18<<20)
	if _, err := im.Load(m); err != nil {
		t.Error(err)
	}
	if n := order.Uint32(at(t, m, 0x700c, 4)); n != 0 {
		t.Errorf("%d modules", n)
	}
}

func FuzzELF(f *testing.F) {
	fuzzKernels(f, elf(), elf32())
}
