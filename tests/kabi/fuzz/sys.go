// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// System calls without the runtime's knowledge. A thread holds its place in the
// scheduler meanwhile; there are places enough, and no call lasts for long.

// sysN returns the result too.
func sysN(nr uintptr, args ...uintptr) (uintptr, unix.Errno) {
	var a [6]uintptr
	copy(a[:], args)
	r, _, errno := unix.RawSyscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
	return r, errno
}

func sys(nr uintptr, args ...uintptr) unix.Errno {
	_, errno := sysN(nr, args...)
	return errno
}

// addr is where something lies that does not move: not on a goroutine's stack.
func addr[T any](p *T) uintptr { return uintptr(unsafe.Pointer(p)) }

// addrOf is where memory begins.
func addrOf(mem []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(mem))) }

// nap sleeps, without the runtime's timers.
func nap(ns int64) {
	ts := unix.Timespec{Sec: ns / 1e9, Nsec: ns % 1e9}
	unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
}

// monotonic is CLOCK_MONOTONIC in ns.
func monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return ts.Nano()
}

// fdOf is what goes to the kernel for a number that may be -1.
func fdOf(fd int32) uintptr { return uintptr(uint32(fd)) }
