// SPDX-License-Identifier: Apache-2.0

package uring_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"vmctl/monitor/uring"
)

// newRing skips where rings are refused.
func newRing(t *testing.T, entries int, files ...int) *uring.Ring {
	t.Helper()
	runtime.LockOSThread()
	r, err := uring.New(entries, 64, files, true)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// wait returns the result of each tag.
func wait(t *testing.T, r *uring.Ring, n int) map[uint64]int32 {
	t.Helper()
	all := map[uint64]int32{}
	for len(all) < n {
		if err := r.Submit(uring.Forever); err != nil {
			t.Fatal(err)
		}
		for tag, res, ok := r.Next(); ok; tag, res, ok = r.Next() {
			all[tag] = res
		}
	}
	return all
}

func list(buffers ...[]byte) (iov []unix.Iovec) {
	for _, b := range buffers {
		iov = append(iov, unix.Iovec{Base: &b[0], Len: uint64(len(b))})
	}
	return iov
}

func TestFiles(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	bell, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(bell)
	r := newRing(t, 4, int(f.Fd()), bell)
	count := new(uint64)
	r.Count(99, 1, count)
	a, b := bytes.Repeat([]byte{1}, 512), bytes.Repeat([]byte{2}, 1024)
	for i := range uint64(10) { // more than fit at once
		r.Transfer(i, 0, true, list(a, b), i*1536, i%2 == 0)
	}
	for tag, res := range wait(t, r, 10) {
		if res != 1536 {
			t.Errorf("write %d: %d", tag, res)
		}
	}
	r.Sync(1, 0)
	if res := wait(t, r, 1); res[1] != 0 {
		t.Errorf("sync: %v", res)
	}
	got := make([]byte, 1536)
	r.Transfer(2, 0, false, list(got), 1536, false)
	if res := wait(t, r, 1); res[2] != 1536 || !bytes.Equal(got, append(a, b...)) {
		t.Errorf("read: %v", res)
	}
	r.Transfer(3, 0, false, list(got), 15000, false)
	if res := wait(t, r, 1); res[3] != 360 {
		t.Errorf("read over the end: %v", res)
	}
	r.Allocate(4, 0, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096)
	if res := wait(t, r, 1)[4]; res != 0 && res != -int32(unix.EOPNOTSUPP) {
		t.Errorf("punch: %v", res)
	}
	if _, err := unix.Write(bell, []byte{5, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	if res := wait(t, r, 1); res[99] != 8 || *count != 5 {
		t.Errorf("eventfd: %v, %d", res, *count)
	}
	r.Transfer(5, 7, false, list(got), 0, false)
	if res := wait(t, r, 1); res[5] != -int32(unix.EBADF) {
		t.Errorf("a file that it does not have: %v", res)
	}
}
