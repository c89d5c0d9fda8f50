// SPDX-License-Identifier: Apache-2.0

package blk

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/monitor/uring"
	"vmctl/monitor/virtio"
)

// What a ring has room for: entries are handed over at once, completions wait for
// all that may be under way.
const (
	ringEntries     = queueSize
	ringCompletions = 2 * MaxQueues * queueSize
)

// failedPause is between two tries of a ring that fails.
const failedPause = 10 * time.Millisecond

// theDisk is its place among the files of the ring; the bells are behind it.
const theDisk = 0

// rings is the engine with a ring: one thread serves all queues, and sleeps in the
// ring for notifications and completions at once. As long as the disk is an image, the
// thread hands all requests to workers.
type rings struct {
	d     *Device
	image *workers // nil: the disk never was one
	ring  *uring.Ring
	begin chan []*virtio.Queue
	ended chan struct{} // once for each begin, and closed with the thread

	// What follows is the thread's.
	pool   pool
	counts []uint64   // of the bells
	armed  []bool     // whether the ring waits for a bell
	live   []*request // under way; the kernel has addresses in them
	idle   []int      // places in live that are free
	first  int        // of the queues, to look at first
}

// newRings fails where the host refuses rings, or has not what they need.
func newRings(d *Device, bells []int) (*rings, error) {
	e := &rings{
		d: d, begin: make(chan []*virtio.Queue), ended: make(chan struct{}),
		counts: make([]uint64, len(bells)), armed: make([]bool, len(bells)),
	}
	ready := make(chan error)
	go e.work(append([]int{int(d.file.Fd())}, bells...), ready)
	return e, <-ready
}

func (e *rings) work(files []int, ready chan<- error) {
	runtime.LockOSThread() // for good: the ring is this thread's
	var err error
	e.ring, err = uring.New(ringEntries, ringCompletions, files, !e.d.opt.ReadOnly)
	ready <- err
	if err != nil {
		return
	}
	for queues := range e.begin {
		e.serve(queues)
		e.ended <- struct{}{}
	}
	_ = e.ring.Close() // the kernel's to tidy up; nothing is under way
	close(e.ended)
}

func (e *rings) start(queues []*virtio.Queue) {
	if e.d.image != nil && e.image == nil {
		e.image = newWorkers(e.d)
	}
	e.begin <- queues
}

func (e *rings) stop() {
	<-e.ended
	if e.image != nil {
		e.image.settle()
	}
}

func (e *rings) close() error {
	close(e.begin)
	<-e.ended
	if e.image != nil {
		return e.image.close()
	}
	return nil
}

// serve does what comes on the queues until they are over and nothing is under
// way. A completion makes room for the next request, so both are handled in one
// turn, which takes one system call, and one more for each interrupt. A ring that
// fails breaks the device, but what is under way keeps its buffers until it is
// done: nobody may think before that it is over.
func (e *rings) serve(queues []*virtio.Queue) {
	for {
		e.reap()
		stopping, sleep := true, uring.Forever
		e.first = (e.first + 1) % len(queues) // or one would have all that a limit allows
		for i := range queues {
			i = (e.first + i) % len(queues)
			q := queues[i]
			if !e.armed[i] {
				e.armed[i] = true
				e.ring.Count(uint64(i), theDisk+1+i, &e.counts[i])
			}
			if q == nil {
				continue
			}
			q.Disarm()
			e.take(q)
			q.Signal()
			stopping = stopping && q.Stopping()
			if d := e.d.limit.Delay(); d > 0 && !q.Over() {
				sleep = min(sleep, d) // whether there is more or not, it is looked at then
			} else if !q.Arm() {
				sleep = 0
			}
		}
		if stopping && len(e.live) == len(e.idle) {
			return
		}
		if err := e.ring.Submit(sleep); err != nil {
			for _, q := range queues {
				if q != nil {
					q.Fail(err)
				}
			}
			time.Sleep(failedPause)
		}
	}
}

// take begins what is new on a queue, as far as the limit goes.
func (e *rings) take(q *virtio.Queue) {
	for e.d.limit.Delay() == 0 {
		r := e.pool.get(q)
		if r == nil {
			return
		}
		if !e.d.parse(r) {
			e.pool.put(r)
			return
		}
		e.d.limit.Take(r.bytes())
		switch {
		case r.do == actNothing:
			e.finish(r)
		case e.d.image != nil:
			e.image.do(r)
		default:
			e.submit(r, e.place(r))
		}
	}
}

// place keeps a request and returns where.
func (e *rings) place(r *request) int {
	if n := len(e.idle); n > 0 {
		at := e.idle[n-1]
		e.idle, e.live[at] = e.idle[:n-1], r
		return at
	}
	e.live = append(e.live, r)
	return len(e.live) - 1
}

// submit puts what is left of a request into the ring.
func (e *rings) submit(r *request, at int) {
	tag := uint64(len(e.counts) + at)
	switch r.do {
	case actRead, actWrite:
		r.iov = r.iov[:0]
		for _, b := range r.data {
			r.iov = append(r.iov, unix.Iovec{Base: &b[0], Len: uint64(len(b))})
		}
		e.ring.Transfer(tag, theDisk, r.do == actWrite, r.iov, r.off, e.d.through && r.do == actWrite)
	case actSync:
		e.ring.Sync(tag, theDisk)
	case actAllocate:
		e.ring.Allocate(tag, theDisk, r.mode, r.off, r.size)
	}
}

// reap takes what the ring has done. What it cut short goes into it again.
func (e *rings) reap() {
	for tag, res, ok := e.ring.Next(); ok; tag, res, ok = e.ring.Next() {
		if tag < uint64(len(e.counts)) {
			e.armed[tag] = false
			continue
		}
		at := int(tag) - len(e.counts)
		r := e.live[at]
		if !r.done(max(int(res), 0), unix.Errno(max(-res, 0)), e.d.through) {
			e.submit(r, at)
			continue
		}
		e.live[at], e.idle = nil, append(e.idle, at)
		e.finish(r)
	}
}

func (e *rings) finish(r *request) {
	r.finish()
	e.pool.put(r)
}
