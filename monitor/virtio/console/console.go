// SPDX-License-Identifier: Apache-2.0

// Package console is virtio's console with its one port, which Linux calls hvc0:
// what is printed takes a notification for each buffer, not an exit for each byte.
package console

import (
	"encoding/binary"
	"sync"

	"vmctl/monitor/virtio"
	"vmctl/monitor/wire"
)

const (
	deviceType = 3
	class      = 0x078000 // communication, of no kind that PCI knows
	queueSize  = 64

	featureSize = 1 << 0

	configSize = 12 // columns, rows, ports, emergency write

	inQueue  = 0
	outQueue = 1

	// piece is how much is printed before the device looks whether it is to stop. It
	// is more than a driver sends at once: of that, nothing is lost.
	piece = 64 << 10
)

// Device is the console.
type Device struct {
	print func(b byte)
	room  func()
	work  sync.WaitGroup

	mu         sync.Mutex // guards what follows
	cols, rows uint16
	in         *virtio.Queue // nil: there is no driver
	chain      virtio.Chain
	full       bool // somebody waits for room
}

// New makes one. print takes what the guest prints and must be quick. room is
// called after a Receive that took less than it was given, when there is room
// again or nobody reads any more.
func New(print func(b byte), room func()) *Device { return &Device{print: print, room: room} }

// Kind is what the driver finds.
func (*Device) Kind() virtio.Kind {
	return virtio.Kind{Type: deviceType, Class: class, Features: featureSize, Queues: 2, Size: queueSize}
}

// Config has the size of the terminal.
func (d *Device) Config() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := binary.LittleEndian.AppendUint16(make([]byte, 0, configSize), d.cols)
	return binary.LittleEndian.AppendUint16(b, d.rows)[:configSize]
}

// Attach has nothing to do.
func (*Device) Attach([]int) error { return nil }

// Start serves the queues. Who waits for room waits for another port's: it is told
// that input goes here now.
func (d *Device) Start(_ uint64, queues []*virtio.Queue) {
	if q := queues[outQueue]; q != nil {
		d.work.Go(func() { d.output(q) })
	}
	if q := queues[inQueue]; q != nil {
		q.Disarm()
		d.setInput(q)
		d.work.Go(func() {
			for q.Wait() {
				d.freed()
			}
		})
	}
	d.room()
}

// Stop ends that.
func (d *Device) Stop() {
	d.setInput(nil)
	d.work.Wait()
	d.freed()
}

// Close has nothing to free.
func (*Device) Close() error { return nil }

// Save writes the size of the terminal.
func (d *Device) Save(w *wire.Writer) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	w.U16(d.cols)
	w.U16(d.rows)
	return nil
}

// Load reads it.
func (d *Device) Load(r *wire.Reader) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cols, d.rows = r.U16(), r.U16()
}

func (d *Device) setInput(q *virtio.Queue) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.in = q
}

// freed calls room if somebody waits for it.
func (d *Device) freed() {
	d.mu.Lock()
	full := d.full
	d.full = false
	d.mu.Unlock()
	if full {
		d.room()
	}
}

// Resize sets the size of the terminal, and reports whether it was another. The
// driver hears of it when the transport says that the configuration changed.
func (d *Device) Resize(cols, rows uint16) (changed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	changed = d.cols != cols || d.rows != rows
	d.cols, d.rows = cols, rows
	return changed
}

// Receive hands the guest bytes to read, and returns how many it took; active is
// whether there is a driver that takes input.
func (d *Device) Receive(p []byte) (n int, active bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.in == nil {
		return 0, false
	}
	for n < len(p) {
		if !d.in.Pop(&d.chain) {
			if !d.in.Arm() {
				continue // there is a buffer after all
			}
			d.full = true
			break
		}
		if len(d.chain.Write) == 0 {
			d.in.Fail(virtio.ErrRequest)
			break
		}
		written := 0
		for _, b := range d.chain.Write {
			written += copy(b, p[n+written:])
		}
		d.in.Push(d.chain.Head, uint32(written))
		n += written
	}
	d.in.Signal()
	return n, true
}

// output prints what comes on a queue.
func (d *Device) output(q *virtio.Queue) {
	var c virtio.Chain
	for {
		q.Disarm()
		for q.Pop(&c) {
			d.printAll(q, c.Read)
			q.Push(c.Head, 0)
			q.Signal()
		}
		if q.Arm() && !q.Wait() {
			return
		}
	}
}

// printAll prints buffers, which may be of any length: when the device is to stop, the
// rest of what no driver sends at once is lost.
func (d *Device) printAll(q *virtio.Queue, buffers [][]byte) {
	n := 0
	for _, b := range buffers {
		for _, v := range b {
			d.print(v)
			if n++; n%piece == 0 && q.Over() {
				return
			}
		}
	}
}
