// SPDX-License-Identifier: Apache-2.0

package jail

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

//go:generate go run ./policy zfilter.go

// loadFilter puts a filter on all threads. The first takes no_new_privs with it.
func loadFilter(program []unix.SockFilter) error {
	const setModeFilter, tsync = 1, 1
	f := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, setModeFilter, tsync, uintptr(unsafe.Pointer(&f)))
	if errno != 0 {
		return errno
	}
	if thread != 0 { // one that has another filter already
		return unix.EBUSY
	}
	return nil
}

// noCapabilities empties the sets of all threads. The bounding set stays: it
// matters to who executes a file, which the filter refuses, and emptying it would
// be forty more interruptions of all threads.
func noCapabilities() error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&none)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
