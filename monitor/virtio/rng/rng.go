// SPDX-License-Identifier: Apache-2.0

// Package rng is virtio's entropy device: it fills buffers with bytes of the
// host's generator, at a bounded rate.
package rng

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/monitor/virtio"
)

const (
	deviceType = 4
	class      = 0x00ff00 // none of PCI's own
	queueSize  = 8

	// maxBytes is given for one buffer at the most; a driver asks again.
	maxBytes = 4 << 10
	// interval is how long the device rests after maxBytes: a guest gets 1 MiB
	// in a second, and takes next to no time of the host's.
	interval = 4 * time.Millisecond
)

// Device is the entropy device.
type Device struct {
	work sync.WaitGroup
	stop chan struct{}
}

// New makes one.
func New() *Device { return new(Device) }

// Kind is what the driver finds.
func (*Device) Kind() virtio.Kind {
	return virtio.Kind{Type: deviceType, Class: class, Queues: 1, Size: queueSize}
}

// Config is empty.
func (*Device) Config() []byte { return nil }

// Attach has nothing to do.
func (*Device) Attach([]int) error { return nil }

// Start serves the queue.
func (d *Device) Start(_ uint64, queues []*virtio.Queue) {
	d.stop = make(chan struct{})
	if q := queues[0]; q != nil {
		d.work.Go(func() { d.serve(q, d.stop) })
	}
}

// Stop ends that.
func (d *Device) Stop() {
	close(d.stop)
	d.work.Wait()
}

// Close has nothing to free.
func (*Device) Close() error { return nil }

func (d *Device) serve(q *virtio.Queue, stop <-chan struct{}) {
	var c virtio.Chain
	for {
		q.Disarm()
		for q.Pop(&c) {
			n := fill(c.Write)
			q.Push(c.Head, n)
			q.Signal()
			select {
			case <-stop:
				return
			case <-time.After(interval * time.Duration(n) / maxBytes):
			}
		}
		if q.Arm() && !q.Wait() {
			return
		}
	}
}

// fill puts random bytes into buffers and returns how many. (crypto/rand would
// bring more into the program than the whole of this package's parent.)
func fill(buffers [][]byte) uint32 {
	n := 0
	for _, b := range buffers {
		for b = b[:min(len(b), maxBytes-n)]; len(b) > 0; {
			// 256 bytes are never cut short.
			got, err := unix.Getrandom(b[:min(len(b), 256)], 0)
			if err != nil {
				return uint32(n) // the host has none yet
			}
			b, n = b[got:], n+got
		}
	}
	return uint32(n)
}
