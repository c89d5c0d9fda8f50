// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Numbers below firstFD belong to the program itself; no call closes or replaces
// them. From there on there is room for mostFDs.
const (
	firstFD = 40
	mostFDs = 200
)

// pool is the table of a process: which descriptor stands at which place. Its
// threads share it without a lock, so that one may close what another is about
// to use, and get what comes of that.
type pool struct {
	fds [kinds][slots]atomic.Int32
}

// clear forgets all.
func (p *pool) clear() {
	for k := range p.fds {
		for i := range p.fds[k] {
			p.fds[k][i].Store(-1)
		}
	}
}

// get is the number at a place. If there is none, it is that of a neighbour: the
// same machine before others.
func (p *pool) get(r ref) int32 {
	of := &p.fds[r.kind]
	if fd := of[r.slot].Load(); fd >= 0 || r.kind == onNothing {
		return fd
	}
	group := r.slot &^ (perGroup - 1)
	for i := uint8(1); i < perGroup; i++ {
		if fd := of[group|(r.slot+i)&(perGroup-1)].Load(); fd >= 0 {
			return fd
		}
	}
	for i := uint8(1); i < slots; i++ {
		if fd := of[(r.slot+i)%slots].Load(); fd >= 0 {
			return fd
		}
	}
	return -1
}

// put places a descriptor, and closes what was there. What a broken argument
// gave as a number may be none of the pool's.
func (p *pool) put(r ref, fd int32) {
	if fd < firstFD {
		return
	}
	p.drop(p.fds[r.kind][r.slot].Swap(fd))
}

// take removes a descriptor from its place.
func (p *pool) take(r ref) int32 { return p.fds[r.kind][r.slot].Swap(-1) }

// drop closes a number of the pool.
func (p *pool) drop(fd int32) unix.Errno {
	if fd < firstFD {
		return unix.EBADF
	}
	return sys(unix.SYS_CLOSE, uintptr(fd))
}
