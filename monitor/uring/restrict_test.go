// SPDX-License-Identifier: Apache-2.0

package uring

import (
	"errors"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What was not agreed on when the ring was made is refused by the kernel.
func TestRestrictions(t *testing.T) {
	t.Run("reads", func(t *testing.T) { restrictions(t, false, opReadv, opFsync, opRead) })
	t.Run("writes", func(t *testing.T) {
		restrictions(t, true, opReadv, opWritev, opFsync, opFallocate, opRead, opWrite)
	})
}

func restrictions(t *testing.T, writes bool, operations ...uint8) {
	runtime.LockOSThread()
	bell, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(bell)
	r, err := New(4, 16, []int{bell}, writes)
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
		if err := r.Submit(Forever); err != nil {
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

// A ring that takes nothing for a while is asked at times, and not all the time.
func TestNextRests(t *testing.T) {
	runtime.LockOSThread()
	other, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(other)
	r, err := New(4, 16, []int{other}, false)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ring, err := unix.FcntlInt(uintptr(r.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ring)
	if err = unix.Dup3(other, r.fd, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		r.next()
	}
	cpu := func() int64 {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
			t.Fatal(err)
		}
		return u.Utime.Nano() + u.Stime.Nano()
	}
	const pause = 500 * time.Millisecond
	back := make(chan error, 1)
	time.AfterFunc(pause, func() { back <- unix.Dup3(ring, r.fd, unix.O_CLOEXEC) })
	used := cpu()
	r.next()
	if used = cpu() - used; used > int64(pause/5) {
		t.Errorf("used the processor for %v of %v", time.Duration(used), pause)
	}
	if err := <-back; err != nil {
		t.Error(err)
	}
}
