// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Bounds of the boards.
const (
	maxWorkers = 16
	maxThreads = 8
	maxOps     = 160
	maxErrno   = 133 // EHWPOISON is the last that Linux has
	leaked     = maxErrno + 1
)

// Orders to a worker.
const (
	orderNone = iota
	orderExit
	orderExec
)

// threadBoard is what a thread shows of itself.
type threadBoard struct {
	beat atomic.Uint32 // moves with each call and after it; odd in a call
	op   atomic.Uint32 // the call
	n    atomic.Uint32 // its number in this life
	tid  atomic.Int32
}

// board is what a worker shares with the supervisor. It outlives the worker.
type board struct {
	order    atomic.Uint32
	life     atomic.Uint32
	pid      atomic.Int32
	calls    atomic.Uint64 // commands, over all lives
	ids      [groups]atomic.Uint64
	threads  [maxThreads]threadBoard
	took     [maxOps]atomic.Uint64             // ns
	outcomes [maxOps][leaked + 1]atomic.Uint32 // [0] is success, [leaked] no errno of user space
}

// boards are those of all workers, and what the supervisor found out for them.
type boards struct {
	family, group atomic.Uint32 // numbers of the netlink family and its group
	of            [maxWorkers]board
}

// mapBoards maps what lies in the memory file.
func mapBoards(fd int) (*boards, error) {
	mem, err := unix.Mmap(fd, 0, int(unsafe.Sizeof(boards{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return (*boards)(unsafe.Pointer(unsafe.SliceData(mem))), nil
}

func (b *boards) unmap() { sys(unix.SYS_MUNMAP, addr(b), unsafe.Sizeof(*b)) }

// newBoards makes the memory file.
func newBoards() (*boards, int, error) {
	fd, err := unix.MemfdCreate("boards", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, -1, err
	}
	if err := unix.Ftruncate(fd, int64(unsafe.Sizeof(boards{}))); err != nil {
		return nil, -1, err
	}
	b, err := mapBoards(fd)
	return b, fd, err
}

// count notes what came of a call.
func (b *board) count(o op, errno unix.Errno, took int64) {
	b.took[o].Add(uint64(took))
	if errno > maxErrno {
		errno = leaked
	}
	b.outcomes[o][errno].Add(1)
	if ops[o].command() {
		b.calls.Add(1)
	}
}
