// SPDX-License-Identifier: Apache-2.0

package uring

import (
	"errors"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// What was not agreed on when the ring was made is refused by the kernel.
func TestRestrictions(t *testing.T) {
	runtime.LockOSThread()
	bell, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(bell)
	r, err := New(4, 16, []int{bell})
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	known := map[uint8]bool{}
	for _, op := range operations {
		known[op] = true
	}
	result := func(change func(*sqe)) int32 {
		t.Helper()
		change(r.next())
		if err := r.Submit(true); err != nil {
			t.Fatal(err)
		}
		_, res, ok := r.Next()
		if !ok {
			t.Fatal("no completion")
		}
		return res
	}
	for op := range uint8(64) {
		if known[op] {
			continue
		}
		if res := result(func(e *sqe) { e.op = op }); res != -int32(unix.EACCES) && res != -int32(unix.EINVAL) {
			t.Errorf("operation %d: %d", op, res)
		}
	}
	if res := result(func(e *sqe) { e.op, e.flags, e.file = opRead, 0, int32(bell) }); res != -int32(unix.EACCES) {
		t.Errorf("a file that is not registered: %d", res)
	}
	const async = 1 << 4
	if res := result(func(e *sqe) { e.op, e.flags = opRead, sqeFixedFile|async }); res != -int32(unix.EACCES) {
		t.Errorf("another flag: %d", res)
	}
	for op := range uintptr(32) {
		if err := r.register(op, nil, 0); !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EBADFD) {
			t.Errorf("register %d: %v", op, err)
		}
	}
}
