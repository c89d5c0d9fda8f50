// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"math/rand/v2"
	"runtime"

	"golang.org/x/sys/unix"
)

// Memory that comes late: a page of it is missing until the kernel or the program
// touches it, and a thread of ours brings it some time after that. A command
// whose argument lies there is held in the middle of its copying.

// What <linux/userfaultfd.h> says.
const (
	uffdAPI      = 0xaa
	uffdioAPI    = 0xc018_aa3f
	uffdioReg    = 0xc020_aa00
	uffdioCopy   = 0xc028_aa03
	uffdMissing  = 1
	uffdMsgSize  = 32
	latestAnswer = 3_000_000 // ns
)

// lateMemory is that of one thread.
type lateMemory struct {
	mem    []byte // nil: this kernel has no such thing
	source []byte // what mem is to hold
}

// lateHandler brings the pages of all threads. What it shows to the kernel is
// part of it, as it must not lie on a stack that moves.
type lateHandler struct {
	fd   int
	list []lateMemory
	api  [3]uint64
	reg  [4]uint64 // start, length, mode, what the kernel can
	copy [5]uint64 // to, from, length, mode, how much was copied
	poll unix.PollFd
	msg  [uffdMsgSize / 8]uint64
}

// newLateHandler returns one without a descriptor if there can be none.
func newLateHandler() *lateHandler {
	fd, errno := sysN(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK)
	if errno != 0 {
		return &lateHandler{fd: -1}
	}
	h := &lateHandler{fd: int(fd), api: [3]uint64{uffdAPI}, poll: unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}}
	if sys(unix.SYS_IOCTL, fd, uffdioAPI, addr(&h.api)) != 0 {
		h.fd = -1
	}
	return h
}

// add makes the memory of a thread.
func (h *lateHandler) add() lateMemory {
	var l lateMemory
	if h.fd < 0 {
		return l
	}
	mem, err := anonymous(lateSize)
	if err != nil {
		return l
	}
	source, err := anonymous(lateSize)
	if err != nil {
		return l
	}
	h.reg = [4]uint64{uint64(addrOf(mem)), lateSize, uffdMissing}
	if sys(unix.SYS_IOCTL, uintptr(h.fd), uffdioReg, addr(&h.reg)) != 0 {
		return l
	}
	l = lateMemory{mem, source}
	h.list = append(h.list, l)
	return l
}

// again makes the memory missing anew.
func (l *lateMemory) again() {
	if l.mem != nil {
		sys(unix.SYS_MADVISE, addrOf(l.mem), lateSize, unix.MADV_DONTNEED)
	}
}

// serve answers for ever.
func (h *lateHandler) serve() {
	runtime.LockOSThread()
	for {
		if sys(unix.SYS_POLL, addr(&h.poll), 1, 1000) != 0 {
			continue
		}
		n, errno := sysN(unix.SYS_READ, uintptr(h.fd), addr(&h.msg), uffdMsgSize)
		if errno == 0 && n == uffdMsgSize {
			nap(rand.Int64N(latestAnswer))
			h.bring(uintptr(h.msg[2]) &^ (pageSize - 1))
		}
	}
}

func (h *lateHandler) bring(page uintptr) {
	for _, l := range h.list {
		off := page - addrOf(l.mem)
		if off >= lateSize {
			continue
		}
		h.copy = [5]uint64{uint64(page), uint64(addrOf(l.source) + off), pageSize}
		sys(unix.SYS_IOCTL, uintptr(h.fd), uffdioCopy, addr(&h.copy))
	}
}
