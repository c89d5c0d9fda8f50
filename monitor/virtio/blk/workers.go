// SPDX-License-Identifier: Apache-2.0

package blk

import (
	"errors"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/monitor/virtio"
)

// numWorkers is how many system calls of a disk are under way at once.
const numWorkers = 8

// workers are the engine for hosts without rings, and for images: each request waits
// in a system call of its own.
type workers struct {
	d       *Device
	todo    chan *request
	readers sync.WaitGroup // one for each queue
	pending sync.WaitGroup // requests
	ended   sync.WaitGroup
	halt    chan struct{} // closed by stop
}

func newWorkers(d *Device) *workers {
	w := &workers{d: d, todo: make(chan *request)}
	for range numWorkers {
		w.ended.Go(w.work)
	}
	return w
}

func (w *workers) start(queues []*virtio.Queue) {
	w.halt = make(chan struct{})
	for _, q := range queues {
		if q != nil {
			w.readers.Go(func() { w.read(q) })
		}
	}
}

func (w *workers) stop() {
	close(w.halt)
	w.readers.Wait()
	w.settle()
}

// settle returns when all is done that the workers were given.
func (w *workers) settle() { w.pending.Wait() }

func (w *workers) close() error {
	close(w.todo)
	w.ended.Wait()
	return nil
}

// read hands what comes on a queue to the workers.
func (w *workers) read(q *virtio.Queue) {
	var free pool
	for {
		q.Disarm()
		for w.mayBegin() {
			r := free.get(q)
			if r == nil {
				break
			}
			if !w.d.parse(r) {
				free.put(r)
				break
			}
			w.d.limit.Take(r.bytes())
			w.do(r)
		}
		if q.Arm() && !q.Wait() {
			return
		}
	}
}

// do hands a request to a worker, as soon as one is free.
func (w *workers) do(r *request) {
	w.pending.Add(1)
	w.todo <- r
}

// mayBegin waits until the limit allows for a request. It reports false when the device
// is being stopped.
func (w *workers) mayBegin() bool {
	d := w.d.limit.Delay()
	if d == 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-w.halt:
		return false
	}
}

func (w *workers) work() {
	for r := range w.todo {
		for r.do != actNothing {
			if n, errno := w.call(r); r.done(n, errno, w.d.through) {
				break
			}
		}
		r.finish()
		r.q.Signal()
		r.owner.put(r)
		w.pending.Done()
	}
}

// call does what is left of a request.
func (w *workers) call(r *request) (n int, errno unix.Errno) {
	if w.d.image != nil {
		return w.d.ofImage(r)
	}
	fd := int(w.d.file.Fd())
	var err error
	switch r.do {
	case actRead:
		n, err = unix.Preadv2(fd, r.data, int64(r.off), 0)
	case actWrite:
		flags := 0
		if w.d.through {
			flags = unix.RWF_DSYNC
		}
		n, err = unix.Pwritev2(fd, r.data, int64(r.off), flags)
	case actSync:
		err = unix.Fdatasync(fd)
	case actAllocate:
		err = unix.Fallocate(fd, r.mode, int64(r.off), int64(r.size))
	}
	errors.As(err, &errno)
	return n, errno
}

// ofImage does a request to an image. Why it cannot is for no log: a guest may ask as
// often as it likes.
func (d *Device) ofImage(r *request) (n int, errno unix.Errno) {
	var err error
	switch {
	case r.do == actRead:
		err = d.image.ReadVec(r.data, r.off)
	case d.medium == nil: // nothing waits to be on the medium
	case r.do == actWrite:
		if err = d.medium.WriteVec(r.data, r.off); err == nil && d.through {
			err = d.medium.Flush()
		}
	case r.do == actSync:
		err = d.medium.Flush()
	case r.do == actAllocate:
		err = d.medium.Zero(r.off, r.size)
	}
	if err != nil {
		return 0, unix.EIO
	}
	return int(r.size), 0
}

// pool keeps requests that are done, for the next ones. There are never more than
// a queue has descriptors.
type pool struct {
	mu   sync.Mutex // guards free
	free *request
}

// get takes the next chain of a queue, or returns nil.
func (p *pool) get(q *virtio.Queue) *request {
	p.mu.Lock()
	r := p.free
	if r != nil {
		p.free = r.next
	}
	p.mu.Unlock()
	if r == nil {
		r = &request{owner: p}
	}
	if r.q = q; !q.Pop(&r.chain) {
		p.put(r)
		return nil
	}
	return r
}

func (p *pool) put(r *request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r.q, r.status, r.data, r.next, p.free = nil, nil, nil, p.free, r
}
