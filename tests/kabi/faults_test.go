// SPDX-License-Identifier: Apache-2.0

//go:build lab && faults

package kabi

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// Memory that is not to be had. The debug kernel refuses a task's allocation by
// its number, so each one that a command makes is refused once. The suite runs
// with GODEBUG=asyncpreemptoff=1: a signal would allocate in the command's place.

// mostAllocations is more than any command makes.
const mostAllocations = 300

// refuser refuses allocations of the thread that made it.
type refuser struct{ fd int }

// newRefuser keeps the test on its thread. All allocations can be refused, those
// that may wait for memory too.
func newRefuser(t *testing.T) refuser {
	t.Helper()
	for name, value := range map[string]string{
		"failslab/ignore-gfp-wait": "N", "failslab/verbose": "0",
		"fail_page_alloc/ignore-gfp-wait": "N", "fail_page_alloc/ignore-gfp-highmem": "N",
		"fail_page_alloc/min-order": "0", "fail_page_alloc/verbose": "0",
	} {
		ok(t, os.WriteFile("/sys/kernel/debug/"+name, []byte(value), 0))
	}
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	fd, err := unix.Open("/proc/thread-self/fail-nth", unix.O_RDWR|unix.O_CLOEXEC, 0)
	ok(t, err)
	t.Cleanup(func() { ok(t, unix.Close(fd)) })
	return refuser{fd}
}

// ioctl gives a command whose nth allocation is refused, and reports whether it
// made so many.
func (r refuser) ioctl(t *testing.T, nth, fd int, req, addr uintptr) (refused bool, err error) {
	t.Helper()
	set, left := []byte(strconv.Itoa(nth)), make([]byte, 16)
	_, _, bad := unix.RawSyscall6(unix.SYS_PWRITE64, uintptr(r.fd), uintptr(addressOf(set)), uintptr(len(set)), 0, 0, 0)
	_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), req, addr)
	n, _, bad2 := unix.RawSyscall6(unix.SYS_PREAD64, uintptr(r.fd), uintptr(addressOf(left)), uintptr(len(left)), 0, 0, 0)
	_, undo := unix.Pwrite(r.fd, []byte("0"), 0)
	ok(t, undo)
	if bad != 0 || bad2 != 0 {
		t.Fatalf("fail-nth: %v, %v", bad, bad2)
	}
	if errno != 0 {
		err = errno
	}
	return strings.TrimSpace(string(left[:n])) == "0", err
}

// TestNoMemory refuses each allocation of each command. What fails says ENOMEM,
// leaves no descriptor and can be given again.
func TestNoMemory(t *testing.T) {
	for _, c := range commands() {
		t.Run(c.name, func(t *testing.T) {
			for n, more := 1, true; more; n++ {
				if n > mostAllocations {
					t.Fatalf("more than %d allocations", mostAllocations)
				}
				t.Run(fmt.Sprint(n), func(t *testing.T) { more = refuseOne(t, c, n) })
			}
		})
	}
}

// refuseOne reports whether the command made n allocations.
func refuseOne(t *testing.T, c command, n int) bool {
	m := newMachine(t, c.at)
	if c.first != nil {
		c.first(m)
	}
	var at []byte
	if !c.bare {
		at = newArgument(t).put(c.arg(m))
	}
	var addr uintptr
	if at != nil {
		addr = uintptr(addressOf(at))
	}
	if c.req == abi.IOCVCPURun {
		ok(t, m.cpu.Kick())
	}
	r := newRefuser(t)
	before := len(openFiles())
	refused, err := r.ioctl(t, n, m.fd(c.on), c.req, addr)
	if c.bare && errors.Is(err, unix.EINTR) {
		err = nil // a run that was kicked
	}
	if err == nil && at != nil {
		m.closeMade(c, at)
	}
	if now := len(openFiles()); now != before {
		t.Errorf("%d descriptors, %d before", now, before)
	}
	switch {
	case err != nil && !refused:
		t.Errorf("%v, and nothing was refused", err)
	case err != nil:
		wantErr(t, c.name, err, unix.ENOMEM)
		wantErr(t, "again", m.give(c, nil), nil)
	}
	return refused
}
