// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// tick is how often the threads are looked at, in ns.
const tick = 2_000_000

// nudge sends a signal to each thread that is in one call for longer than its
// patience: a guest that never exits and a gate that stays shut are left like
// that. The next one comes after twice the time, and so on: VM_BIND begins anew
// with each signal that comes too early.
func (p *process) nudge() {
	runtime.LockOSThread()
	var beats, since [maxThreads]uint32
	signals := [...]unix.Signal{unix.SIGURG, unix.SIGUSR1}
	for {
		nap(tick)
		for i, t := range p.threads {
			beat := t.show.beat.Load()
			if beat&1 == 0 || beat != beats[i] {
				beats[i], since[i] = beat, 0
				continue
			}
			if since[i]++; since[i] >= t.patience.Load() {
				t.patience.Store(2 * since[i])
				p.signal(i, signals[since[i]%2])
			}
		}
	}
}

// signal sends one to a thread of this process.
func (p *process) signal(thread int, s unix.Signal) unix.Errno {
	return sys(unix.SYS_TGKILL, uintptr(p.pid), uintptr(p.board.threads[thread].tid.Load()), uintptr(s))
}
