// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

const (
	pageSize  = 4096
	readSize  = 16 << 10 // of memory that cannot be written
	lateSize  = 2 * pageSize
	outSize   = 64 << 10
	gotSize   = 32 << 10
	guardSize = pageSize
)

// memory is where a thread's arguments lie.
type memory struct {
	arg     []byte // up to a page of nothing
	read    [2][]byte
	late    lateMemory
	out     []byte // for the kernel to write what nobody reads
	got     []byte // the answer, aligned
	scratch []byte // names, messages

	// What system calls read and write beside that.
	msg     message
	poll    [3]unix.PollFd
	event   unix.EpollEvent
	limit   unix.Rlimit
	number  uint32
	signals [2]uint64
	fork    forkWork
	info    struct {
		abi.Payload
		abi.VMInfo
	}
	regs struct {
		abi.Payload
		abi.KVMRegs
	}
}

func newMemory(u *lateHandler) (*memory, error) {
	m := new(memory)
	mem, err := anonymous(maxArg + guardSize)
	if err != nil {
		return nil, err
	}
	if err := unix.Mprotect(mem[maxArg:], unix.PROT_NONE); err != nil {
		return nil, err
	}
	m.arg = mem[:maxArg:maxArg]
	if m.read, err = twice(readSize); err != nil {
		return nil, err
	}
	if mem, err = anonymous(outSize + gotSize + pageSize); err != nil {
		return nil, err
	}
	m.out, m.got, m.scratch = mem[:outSize], mem[outSize:][:gotSize], mem[outSize+gotSize:]
	m.late = u.add()
	return m, nil
}

func anonymous(size int) ([]byte, error) {
	return unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
}

// twice is memory that can be seen at two addresses, at the second read-only.
func twice(size int) (m [2][]byte, err error) {
	fd, err := unix.MemfdCreate("read", unix.MFD_CLOEXEC)
	if err != nil {
		return m, err
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return m, err
	}
	if m[0], err = unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return m, err
	}
	m[1], err = unix.Mmap(fd, 0, size, unix.PROT_READ, unix.MAP_SHARED)
	return m, err
}

// bad are addresses where no argument can be.
var bad = [...]uintptr{0, 8, 1 << 46, 1<<47 - 8, 1 << 47, 0xffff_8880_0000_0000, ^uintptr(0), ^uintptr(4095)}

// choose says where an argument of n bytes is written, and the address that goes
// to the kernel. What does not fit into the place that was meant goes elsewhere.
func (t *thread) choose(c *call, n int) (dst []byte, at uintptr) {
	m := t.mem
	switch {
	case c.at == placeEnd:
		dst = m.arg[maxArg-n:]
	case c.at == placeOdd && n < maxArg-8:
		dst = m.arg[1+c.atN%7:][:n]
	case c.at == placeCut && n > 0:
		dst = m.arg[maxArg-n+1+int(c.atN%uint64(n)):]
	case c.at == placeShared && n <= len(t.common):
		dst = t.common[int(c.atN%uint64(len(t.common)-n+1))&^7:][:n]
	case c.at == placeRead && n <= readSize:
		return m.read[0][:n], addrOf(m.read[1])
	case c.at == placeLate && n <= lateSize && m.late.mem != nil:
		off := int(c.atN%uint64(lateSize-n+1)) &^ 7
		return m.late.source[off:][:n], addrOf(m.late.mem[off:])
	case c.at == placeBad:
		return nil, bad[c.atN%uint64(len(bad))]
	default:
		dst = m.arg[:n]
	}
	if n == 0 || len(dst) == 0 {
		return dst, addrOf(m.arg) + maxArg
	}
	return dst, addrOf(dst)
}

// lay writes the argument to its place and returns its address and its length.
func (t *thread) lay(o *operation, c *call) (uintptr, int) {
	src := c.arg
	kept := c.last && !o.keeps && t.stash[o.stash] != nil
	if kept {
		src = t.stash[o.stash]
	}
	dst, at := t.choose(c, len(src))
	copy(dst, src)
	if kept && len(dst) >= headSize {
		binary.LittleEndian.PutUint32(dst, uint32(len(src)))
		binary.LittleEndian.PutUint32(dst[4:], o.class)
	}
	for i := range c.fixes {
		t.fix(dst, &c.fixes[i])
	}
	for _, e := range c.edits {
		write(dst, e.off, e.width, e.value)
	}
	tame(c.request(), dst)
	return at, len(src)
}

// fix writes what only the pool knows.
func (t *thread) fix(dst []byte, f *fix) {
	switch f.what {
	case fixFD:
		write(dst, f.off, 4, uint64(uint32(t.pool.get(f.ref))))
	case fixID:
		write(dst, f.off, 8, t.board.ids[f.plus].Load())
	case fixForeign:
		b := &t.all.of[int(f.plus)/groups%t.o.workers]
		write(dst, f.off, 8, b.ids[f.plus%groups].Load())
	case fixNow:
		write(dst, f.off, 8, uint64(monotonic()+f.plus))
	case fixOut:
		write(dst, f.off, 8, uint64(addrOf(t.mem.out))+uint64(f.plus))
	case fixFamily:
		write(dst, f.off, 2, uint64(t.all.family.Load()))
	}
}

// write writes a number, if there is room.
func write(dst []byte, off, width int, value uint64) {
	if off+width > len(dst) {
		return
	}
	for i := range width {
		dst[off+i] = byte(value >> (8 * i))
	}
}

// fetch copies the answer to aligned memory. It is nil where the argument was not
// in one piece.
func (t *thread) fetch(c *call, n int) []byte {
	if n > gotSize || c.at == placeCut || c.at == placeRead || c.at == placeBad {
		return nil
	}
	from, _ := t.choose(c, n)
	if c.at == placeLate && t.mem.late.mem != nil && n <= lateSize {
		from = t.mem.late.mem[int(c.atN%uint64(lateSize-n+1))&^7:]
	}
	copy(t.mem.got, from[:n])
	return t.mem.got[:n]
}
