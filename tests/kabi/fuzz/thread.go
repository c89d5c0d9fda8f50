// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// thread makes the calls of one generator.
type thread struct {
	*process
	n        name
	gen      *gen
	mem      *memory
	show     *threadBoard
	patience atomic.Uint32 // ticks until the call gets a signal
	stash    [stashes][]byte
	taken    uint32 // files that VM_GET_BACKEND gave
	path     [64]byte
	tracing  bool
	strikes  int
}

func newThread(p *process, n name, late *lateHandler) (*thread, error) {
	m, err := newMemory(late)
	if err != nil {
		return nil, err
	}
	t := &thread{process: p, n: n, gen: newGen(p.o.seed, n), mem: m, show: &p.board.threads[n.thread]}
	t.tracing = p.o.trace == n.String()
	return t, nil
}

// run makes calls until the process ends.
func (t *thread) run() {
	runtime.LockOSThread()
	t.show.tid.Store(int32(unix.Gettid()))
	t.unshareNet()
	for i := uint32(0); ; i++ {
		if i%1024 == 0 {
			t.rename(i)
		}
		c := t.gen.next()
		if t.tracing {
			fmt.Fprintf(os.Stderr, "%v #%d %v\n", t.n, i, c)
		}
		start := monotonic()
		errno := t.make(c, i)
		t.board.count(c.op, errno, monotonic()-start)
		if t.tracing {
			fmt.Fprintf(os.Stderr, "%v #%d = %s\n", t.n, i, errnoName(errno))
		}
		t.tooMany(errno)
	}
}

// rename says who this is, and about how far, in what the kernel calls the thread.
func (t *thread) rename(i uint32) {
	text := t.mem.scratch[:0]
	text = fmt.Appendf(text, "%v#%d\x00", t.n, i)
	sys(unix.SYS_PRCTL, unix.PR_SET_NAME, addrOf(text))
}

// make makes the call, and lets the watchers see it.
func (t *thread) make(c *call, i uint32) unix.Errno {
	t.show.op.Store(uint32(c.op))
	t.show.n.Store(i)
	t.patience.Store(c.patience)
	t.show.beat.Add(1)
	defer t.show.beat.Add(1)
	o := c.of
	if o.do != nil {
		return o.do(t, c)
	}
	return t.ioctl(o, c)
}

func (t *thread) ioctl(o *operation, c *call) unix.Errno {
	fd := t.pool.get(c.on)
	at, n := uintptr(c.n[0]), 0 // of a command without argument
	if o.size > 0 {
		at, n = t.lay(o, c)
	}
	_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, fdOf(fd), c.request(), at)
	if errno == 0 && (o.after != nil || o.keeps) {
		t.answer(o, c, n)
	}
	if c.at == placeLate {
		t.mem.late.again()
	}
	return errno
}

// answer takes descriptors out of the answer, or keeps it.
func (t *thread) answer(o *operation, c *call, n int) {
	got := t.fetch(c, n)
	if len(got) < o.size {
		return
	}
	if o.after != nil {
		o.after(t, c, got)
	}
	if !o.keeps {
		return
	}
	if o.stash == stashCPUID {
		const each = int(unsafe.Sizeof(abi.KVMCPUIDEntry2{}))
		entries := min(int(binary.LittleEndian.Uint32(got[headSize:])), (len(got)-headSize-8)/each)
		got = got[:headSize+8+entries*each]
	}
	t.stash[o.stash] = append(t.stash[o.stash][:0], got...)
}

// mostStrikes is how many calls in a row may find no free descriptor.
const mostStrikes = 100

// tooMany starts anew when the pool has lost track of too many descriptors.
func (t *thread) tooMany(errno unix.Errno) {
	switch errno {
	case unix.EMFILE:
		if t.strikes++; t.strikes > mostStrikes {
			t.sweep()
			t.strikes = 0
		}
	case 0:
		t.strikes = 0
	}
}

// errnoName is the short name of an outcome.
func errnoName(errno unix.Errno) string {
	switch {
	case errno == 0:
		return "ok"
	case errno >= leaked:
		return "LEAKED"
	}
	return unix.ErrnoName(errno)
}
