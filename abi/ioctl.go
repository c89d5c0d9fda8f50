// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Error is what a command answered.
type Error struct {
	Op  string     // the command, such as "vm-create"
	Err unix.Errno // what vmm.h says about it
}

// Error returns the command and the text of the error number.
func (e *Error) Error() string { return e.Op + ": " + e.Err.Error() }

// Unwrap returns the error number.
func (e *Error) Unwrap() error { return e.Err }

// Ioctl is the bare system call, once. Its error is a [unix.Errno].
func Ioctl(fd int, req uintptr, arg unsafe.Pointer) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(arg))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// closed is the number of a descriptor after Close: every command gets EBADF.
const closed = -1

// file is one descriptor of the module, of any kind.
type file struct {
	fd atomic.Int32
}

// FD returns the number of the descriptor, or -1 after Close.
func (f *file) FD() int { return int(f.fd.Load()) }

// Close closes the descriptor. A second Close does nothing.
func (f *file) Close() error {
	fd := f.fd.Swap(closed)
	if fd == closed {
		return nil
	}
	if err := unix.Close(int(fd)); err != nil {
		return &Error{"close", err.(unix.Errno)}
	}
	return nil
}

// interrupts is how often a command that a signal interrupted is tried again
// before EINTR goes to the caller. The Go runtime sends signals of its own.
const interrupts = 16

// call gives a command to the kernel. Such a command did nothing when it returns
// EINTR, so that it can be given again.
func (f *file) call(op string, req uintptr, arg unsafe.Pointer) (int, error) {
	var n int
	var errno unix.Errno
	for range interrupts {
		if n, errno = f.once(req, arg); errno != unix.EINTR {
			break
		}
	}
	if errno != 0 {
		return 0, &Error{op, errno}
	}
	return n, nil
}

// once gives a command to the kernel one time.
func (f *file) once(req uintptr, arg unsafe.Pointer) (int, unix.Errno) {
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(f.fd.Load()), req, uintptr(arg))
	return int(n), errno
}
