// SPDX-License-Identifier: Apache-2.0

//go:build lab

package kabi

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// addressOf is where mem lies.
func addressOf(mem []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(mem)))) }

// bytesOf copies a structure.
func bytesOf[T any](v T) []byte {
	return append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(&v)), unsafe.Sizeof(v))...)
}

// fromBytes is the structure that lies at the start of b.
func fromBytes[T any](b []byte) T {
	var v T
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&v)), unsafe.Sizeof(v)), b)
	return v
}

// ioctlAt gives a command with an address, be it good or bad.
func ioctlAt(fd int, req, addr uintptr) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, addr)
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

// argument is memory whose end is followed by nothing, so that a read or write
// beyond it is EFAULT.
type argument struct{ page []byte }

func newArgument(t testing.TB) *argument {
	t.Helper()
	mem, err := unix.Mmap(-1, 0, 3*4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	ok(t, err)
	t.Cleanup(func() { ok(t, unix.Munmap(mem)) })
	ok(t, unix.Mprotect(mem[2*4096:], unix.PROT_NONE))
	return &argument{mem[: 2*4096 : 2*4096]}
}

// put places arg right before the end and returns it there. It is aligned when
// the length of arg is.
func (a *argument) put(arg []byte) []byte {
	at := a.page[len(a.page)-len(arg):]
	copy(at, arg)
	return at
}

// beyond is an address from which nothing can be read.
func (a *argument) beyond() uintptr { return uintptr(addressOf(a.page)) + uintptr(len(a.page)) }

// ioctl gives a command with arg, guarded.
func (a *argument) ioctl(fd int, req uintptr, arg []byte) ([]byte, int, error) {
	at := a.put(arg)
	n, err := ioctlAt(fd, req, uintptr(addressOf(at)))
	return at, n, err
}

// payload builds the argument of a command by class.
func payload(class uint32, parts ...[]byte) []byte {
	var body []byte
	for _, p := range parts {
		body = append(body, p...)
	}
	return append(bytesOf(abi.Payload{Size: uint32(8 + len(body)), Class: class}), body...)
}
