// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"io"
	"slices"
)

// Fields of an ELF file, of its program headers and of the notes among them (System V
// ABI), in files of 64 bits. In those of 32 bits addresses are half as long.
const (
	elfMagic     = "\x7fELF"
	elfClass     = 4
	elfOrder     = 5
	elfVersion   = 6
	elf32, elf64 = 1, 2
	elfLittle    = 1
	elfMachine   = 18
	machine386   = 3
	machineAMD64 = 62

	segmentLoad = 1
	segmentNote = 4

	// The entry is named by a note (xen/include/public/elfnote.h).
	noteHead  = 12
	noteName  = "Xen\x00"
	noteEntry = 18 // XEN_ELFNOTE_PHYS32_ENTRY

	maxSegments = 64
	maxNotes    = 64 << 10 // bytes, of one segment
)

// segment is a program header.
type segment struct {
	kind             uint32
	off              uint64 // in the file
	addr             uint64 // physical
	fileSize, memory uint64
}

// parseELF looks at a kernel that is entered by PVH's rules. What is to be loaded lies in
// ascending order and does not overlap, so that it is no more than fits into memory.
func parseELF(file io.ReaderAt, size int64, head []byte) (*Kernel, error) {
	segments, err := readSegments(file, uint64(size), head)
	if err != nil {
		return nil, err
	}
	k := &Kernel{file: file, pvh: true, initrdMax: 1<<32 - 1, cmdlineMax: 1<<32 - 1, end: lowest}
	found := false
	for _, s := range segments {
		if s.off > uint64(size) || s.fileSize > uint64(size)-s.off {
			return nil, ErrCutKernel
		}
		switch {
		case s.kind == segmentLoad && s.memory > 0:
			if s.fileSize > s.memory || s.addr < k.end || s.addr >= 1<<32 || s.memory > 1<<32 {
				return nil, ErrKernelHeader
			}
			k.parts = append(k.parts, part{s.addr, int64(s.off), s.fileSize})
			k.end = s.addr + s.memory
		case s.kind == segmentNote && !found && s.fileSize <= maxNotes:
			notes := make([]byte, s.fileSize)
			if err := readFull(file, notes, int64(s.off)); err != nil {
				return nil, err
			}
			k.entry, found = findEntry(notes)
		}
	}
	if !found {
		return nil, ErrNoEntry
	}
	inside := func(p part) bool { return k.entry >= p.addr && k.entry-p.addr < p.size }
	if !slices.ContainsFunc(k.parts, inside) {
		return nil, ErrKernelHeader
	}
	return k, nil
}

// readSegments reads the program headers of a file for this processor.
func readSegments(file io.ReaderAt, size uint64, head []byte) ([]segment, error) {
	class, machine := head[elfClass], order.Uint16(head[elfMachine:])
	if head[elfOrder] != elfLittle || head[elfVersion] != 1 ||
		!(class == elf64 && machine == machineAMD64 || class == elf32 && machine == machine386) {
		return nil, ErrKernelHeader
	}
	table, entry, count := order.Uint64(head[32:]), order.Uint16(head[54:]), uint64(order.Uint16(head[56:]))
	want := uint64(56)
	if class == elf32 {
		table, entry, count = uint64(order.Uint32(head[28:])), order.Uint16(head[42:]), uint64(order.Uint16(head[44:]))
		want = 32
	}
	if uint64(entry) != want || count > maxSegments {
		return nil, ErrKernelHeader
	}
	if table > size || count*want > size-table {
		return nil, ErrCutKernel
	}
	b := make([]byte, count*want)
	if err := readFull(file, b, int64(table)); err != nil {
		return nil, err
	}
	var list []segment
	for ; len(b) > 0; b = b[want:] {
		s := segment{kind: order.Uint32(b)}
		if class == elf32 {
			s.off, s.addr = uint64(order.Uint32(b[4:])), uint64(order.Uint32(b[12:]))
			s.fileSize, s.memory = uint64(order.Uint32(b[16:])), uint64(order.Uint32(b[20:]))
		} else {
			s.off, s.addr = order.Uint64(b[8:]), order.Uint64(b[24:])
			s.fileSize, s.memory = order.Uint64(b[32:]), order.Uint64(b[40:])
		}
		list = append(list, s)
	}
	return list, nil
}

// findEntry looks for the note with the physical address at which the kernel begins, in
// 32-bit mode.
func findEntry(notes []byte) (entry uint64, found bool) {
	padded := func(n uint32) uint64 { return (uint64(n) + 3) &^ 3 }
	for len(notes) >= noteHead {
		name, desc, kind := order.Uint32(notes), order.Uint32(notes[4:]), order.Uint32(notes[8:])
		notes = notes[noteHead:]
		if padded(name)+padded(desc) > uint64(len(notes)) {
			return 0, false
		}
		text, value := notes[:name], notes[padded(name):][:desc]
		if string(text) == noteName && kind == noteEntry && len(value) >= 4 {
			return uint64(order.Uint32(value)), true
		}
		notes = notes[padded(name)+padded(desc):]
	}
	return 0, false
}
