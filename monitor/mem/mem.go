// SPDX-License-Identifier: Apache-2.0

// Package mem is the memory of a guest: anonymous pages outside the Go heap,
// which the host gives when the guest first touches them, and the one place
// where an address that came from the guest is checked.
//
// Guest-physical space: RAM from 0 to at most 3 GiB, then a gap for devices up
// to 4 GiB, then the rest of RAM.
//
// The pages are private and anonymous, not a memfd: stock kernels give huge
// pages to the former alone (shmem_enabled is "never" by default), and without
// them a nested guest reaches its init about a tenth later.
package mem

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Layout of guest-physical space.
const (
	GapStart = 3 << 30 // end of low RAM at the most
	GapEnd   = 4 << 30 // start of high RAM
	pageSize = 4096
	huge     = 2 << 20
)

var (
	// ErrRange is an access that is not all within RAM.
	ErrRange = errors.New("address outside guest memory")
	// ErrSize is a size that New cannot make.
	ErrSize = errors.New("memory must be a positive multiple of 4 KiB")
)

// Region is a part of RAM that is one piece in guest-physical space.
type Region struct {
	Base  uint64 // guest-physical
	bytes []byte
}

// Len is the size of the region in bytes.
func (r *Region) Len() uint64 { return uint64(len(r.bytes)) }

// HostAddr is where the region lies in this process.
func (r *Region) HostAddr() uint64 { return HostAddr(r.bytes) }

// HostAddr is where bytes lie in this process.
func HostAddr(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

// Memory is the RAM of one guest.
type Memory struct {
	mapping []byte // what was mapped, larger than RAM for alignment
	ram     []byte
	regions []Region
	ofFile  bool // pages of MapFile are there
}

// New makes size bytes of RAM. None of it takes host memory before it is touched.
func New(size uint64) (*Memory, error) {
	if size == 0 || size%pageSize != 0 || size > 1<<46 {
		return nil, ErrSize
	}
	// Host and guest addresses agree modulo 2 MiB, or the host cannot map huge
	// pages into the guest.
	mapping, err := unix.Mmap(-1, 0, int(size+huge), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	at := uintptr(unsafe.Pointer(unsafe.SliceData(mapping)))
	skip := -at & (huge - 1)
	m := &Memory{mapping: mapping, ram: mapping[skip:][:size:size]}
	low := min(size, GapStart)
	m.regions = append(m.regions, Region{0, m.ram[:low:low]})
	if size > low {
		m.regions = append(m.regions, Region{GapEnd, m.ram[low:]})
	}
	// Advice: a host without huge pages refuses, a core dump would hold secrets.
	_ = unix.Madvise(m.ram, unix.MADV_HUGEPAGE)
	_ = unix.Madvise(m.ram, unix.MADV_DONTDUMP)
	return m, nil
}

// Over is memory that lies in bytes of the caller's, from address 0 on: the race
// detector sees what tests do to bytes of the Go heap alone.
func Over(ram []byte) *Memory { return &Memory{ram: ram, regions: []Region{{0, ram}}} }

// Close gives the memory back. Nothing that At returned may be used afterwards.
func (m *Memory) Close() error {
	if m.mapping == nil {
		return nil
	}
	err := unix.Munmap(m.mapping)
	m.mapping, m.ram, m.regions = nil, nil, nil
	return os.NewSyscallError("munmap", err)
}

// Regions returns the pieces of RAM, lowest first: one or two.
func (m *Memory) Regions() []Region { return m.regions }

// Size is all RAM in bytes.
func (m *Memory) Size() uint64 { return uint64(len(m.ram)) }

// LowEnd is the end of RAM below the gap.
func (m *Memory) LowEnd() uint64 { return min(m.Size(), GapStart) }

// At returns the n bytes of RAM at a guest-physical address, which must be all
// in one region. errors.Is: ErrRange. Whoever writes to them does so in the
// middle of what the guest does.
func (m *Memory) At(addr, n uint64) ([]byte, error) {
	for i := range m.regions {
		r := &m.regions[i]
		off := addr - r.Base
		if addr >= r.Base && off <= r.Len() && n <= r.Len()-off {
			return r.bytes[off:][:n:n], nil
		}
	}
	return nil, ErrRange
}

// Write copies data to a guest-physical address. errors.Is: ErrRange.
func (m *Memory) Write(addr uint64, data []byte) error {
	b, err := m.At(addr, uint64(len(data)))
	if err != nil {
		return err
	}
	copy(b, data)
	return nil
}

// Release gives the host the pages that lie whole within bytes that At returned. The
// guest finds zeros there when it touches them again. errors.Is: ErrRange.
func (m *Memory) Release(b []byte) error {
	if at, base := HostAddr(b), HostAddr(m.ram); m.mapping == nil || at < base || at-base > m.Size() || uint64(len(b)) > m.Size()-(at-base) {
		return ErrRange // bytes of somebody else's would be lost
	}
	skip := int(-HostAddr(b) & (pageSize - 1))
	if len(b) < skip+pageSize {
		return nil
	}
	b = b[skip:]
	b = b[:len(b)&^(pageSize-1)]
	return os.NewSyscallError("madvise", unix.Madvise(b, unix.MADV_DONTNEED))
}

// MapFile lets RAM begin with what a file has, from its first byte on: privately, and
// page by page as they are touched, so that it takes no longer for more memory. Where
// the file has holes RAM stays as it is. The file must keep its size as long as m is
// used.
//
// Pages of a file cannot be given back for good: after Release the guest finds there
// what the file has.
func (m *Memory) MapFile(fd int) error {
	m.ofFile = true
	for at := int64(0); at < int64(len(m.ram)); {
		from, err := unix.Seek(fd, at, unix.SEEK_DATA)
		if err == unix.ENXIO {
			return nil // nothing but a hole from here on
		}
		if err != nil {
			return os.NewSyscallError("lseek", err)
		}
		// Whole huge pages: what lies between them can have some, and there is a bound to
		// the number of mappings.
		from &^= huge - 1
		to, err := unix.Seek(fd, max(from, at), unix.SEEK_HOLE)
		if err != nil {
			return os.NewSyscallError("lseek", err)
		}
		to = min((to+huge)&^(huge-1), int64(len(m.ram)))
		if from >= to {
			return nil
		}
		if err := remap(m.ram[from:to], fd, from, 0); err != nil {
			return err
		}
		at = to
	}
	return nil
}

// remap puts other pages in the place of b.
func remap(b []byte, fd int, offset int64, flags int) error {
	_, err := unix.MmapPtr(fd, offset, unsafe.Pointer(unsafe.SliceData(b)), uintptr(len(b)),
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_FIXED|unix.MAP_NORESERVE|flags)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	_ = unix.Madvise(b, unix.MADV_DONTDUMP)
	return nil
}

// Clear makes all RAM zero again and gives its pages back to the host.
func (m *Memory) Clear() error {
	if !m.ofFile {
		return os.NewSyscallError("madvise", unix.Madvise(m.ram, unix.MADV_DONTNEED))
	}
	if err := remap(m.ram, -1, 0, unix.MAP_ANONYMOUS); err != nil {
		return err
	}
	m.ofFile = false
	_ = unix.Madvise(m.ram, unix.MADV_HUGEPAGE)
	return nil
}
