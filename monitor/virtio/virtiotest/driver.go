// SPDX-License-Identifier: Apache-2.0

// Package virtiotest drives a virtio device in a test as a guest would: it finds it
// on a PCI bus, agrees on features, and talks to it by rings in memory.
package virtiotest

import (
	"encoding/binary"
	"errors"
	"sync"
	"testing"
	"time"

	"vmctl/monitor/bus"
	"vmctl/monitor/mem"
	"vmctl/monitor/pci"
	"vmctl/monitor/virtio"
)

var order = binary.LittleEndian

// Size is how many descriptors each queue has, and Chain how many of them, and
// how many bytes of buffers, a request has at the most.
const (
	Size     = 64
	Chain    = 8
	Buffers  = 64 << 10
	requests = Size / Chain

	page     = 4096
	perQueue = 3*page + requests*Buffers
	bar      = pci.WindowBase
	slot     = pci.ECAMBase + 1<<15
	timeout  = 20 * time.Second
)

// Driver is a guest's driver of one device. It is for one goroutine; requests of
// different queues may be made by different ones.
type Driver struct {
	t      testing.TB
	dev    *virtio.Transport
	behind virtio.Device
	host   *pci.Host
	memory bus.Space
	ram    []byte
	queues []*queue

	mu      sync.Mutex // guards what follows
	broken  []error
	changes int
}

type queue struct {
	avail, used mem.Shared
	base        uint64
	added, seen uint16
	first, end  int // of the descriptors of the last Begin, in chains
	raised      chan struct{}
}

// New finds a device and starts it with all that it offers but features that are
// left out. It ends with the test.
func New(t testing.TB, dev virtio.Device, without uint64) *Driver {
	t.Helper()
	d := plug(t, dev)
	d.memory.Write(slot+4, []byte{6, 0})
	d.memory.Write(slot+0x9a, []byte{0, 0x80}) // MSI-X on
	d.Start(without)
	return d
}

// plug puts a device on a bus, where nobody has touched it yet.
func plug(t testing.TB, dev virtio.Device) *Driver {
	t.Helper()
	n := dev.Kind().Queues
	d := &Driver{t: t, behind: dev, ram: make([]byte, n*perQueue), host: pci.NewHost()}
	m := mem.Over(d.ram)
	for i := range n {
		q := &queue{base: uint64(i * perQueue), raised: make(chan struct{}, 1)}
		var err [2]error
		q.avail, err[0] = m.Share(q.base+page, 4+2*Size+2, 4)
		q.used, err[1] = m.Share(q.base+2*page, 4+8*Size+2, 4)
		if e := errors.Join(err[:]...); e != nil {
			t.Fatal(e)
		}
		d.queues = append(d.queues, q)
	}
	tr, f, err := virtio.NewTransport(dev, virtio.Env{
		Memory: m, Messages: d, Doorbell: func(uint64, int, bool) error { return nil }, Broken: d.fail,
	})
	if err != nil {
		t.Fatal(err)
	}
	d.dev = tr
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	_, err = d.host.Add(f)
	if err := errors.Join(err, d.host.Attach(new(bus.Space), &d.memory)); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *Driver) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.broken = append(d.broken, err)
	for _, q := range d.queues {
		q.raise()
	}
}

func (q *queue) raise() {
	select {
	case q.raised <- struct{}{}:
	default:
	}
}

// Broken is what the device found fault with.
func (d *Driver) Broken() []error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.broken
}

// Route and Send are the interrupts.
func (d *Driver) Route(int, uint64, uint32) bool { return true }

// File has none: all are sent by Send.
func (*Driver) File(int) int { return pci.NoFile }

// Send wakes who waits for the queue.
func (d *Driver) Send(vector int) {
	if vector > 0 {
		d.queues[vector-1].raise()
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.changes++
}

// Changed lets the transport say that the configuration changed.
func (d *Driver) Changed() { d.dev.Changed() }

// Device is what New was given.
func (d *Driver) Device() virtio.Device { return d.behind }

// Alter changes the device as its owner does.
func (d *Driver) Alter(change func() error) error { return d.dev.Alter(change) }

// Changes is how often the driver heard of that.
func (d *Driver) Changes() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changes
}

// Generation is that of the configuration.
func (d *Driver) Generation() byte {
	var b [1]byte
	d.memory.Read(bar+21, b[:])
	return b[0]
}

func (d *Driver) set(reg uint64, size int, v uint64) {
	d.memory.Write(bar+reg, order.AppendUint64(nil, v)[:size])
}

// Pause and Resume are as a machine that is saved uses them.
func (d *Driver) Pause()  { d.dev.Pause() }
func (d *Driver) Resume() { d.dev.Resume() }

// Reset stops the device.
func (d *Driver) Reset() { d.set(20, 1, 0) }

// Start brings the device up, after New or Reset.
func (d *Driver) Start(without uint64) {
	d.set(20, 1, 3)
	for i := range uint64(2) {
		var b [4]byte
		d.set(0, 4, i)
		d.memory.Read(bar+4, b[:])
		d.set(8, 4, i)
		d.set(12, 4, uint64(order.Uint32(b[:]))&^(without>>(32*i)))
	}
	d.set(20, 1, 11)
	d.set(16, 2, 0)
	d.set(0x2000+12, 4, 0)
	for i, q := range d.queues {
		q.added, q.seen = 0, 0
		clear(d.ram[q.base:][:3*page])
		d.set(0x2000+16*uint64(i+1)+12, 4, 0) // the vector is not masked
		d.set(22, 2, uint64(i))
		d.set(24, 2, Size)
		d.set(26, 2, uint64(i+1))
		d.set(32, 8, q.base)
		d.set(40, 8, q.base+page)
		d.set(48, 8, q.base+2*page)
		d.set(28, 2, 1)
	}
	d.set(20, 1, 15)
}

// Config reads the device's configuration.
func (d *Driver) Config(off uint64, n int) []byte {
	b := make([]byte, n)
	d.memory.Read(bar+0x800+off, b)
	return b
}

// Request is a chain: what the device reads, and how much it may write.
type Request struct {
	Read  [][]byte
	Write []int
}

// Result is what the device wrote, of which it said that it is Len bytes.
type Result struct {
	Write [][]byte
	Len   int
}

// Do makes requests on a queue, all at once, and waits until the device is done
// with all of them or broken.
func (d *Driver) Do(n int, list ...Request) []Result {
	d.t.Helper()
	q, broken := d.queues[n], len(d.Broken())
	results := d.Begin(n, list...)
	deadline := time.After(timeout)
	for q.seen != q.added {
		q.avail.Store16(4+2*Size, q.seen)
		if q.used.Load16(2) == q.seen {
			if len(d.Broken()) > broken {
				return nil
			}
			select {
			case <-q.raised:
			case <-deadline:
				d.t.Fatal("the device does not answer")
			}
			continue
		}
		e := d.ram[q.base+2*page+4+8*uint64(q.seen%Size):]
		if i := int(order.Uint32(e)/Chain) - q.first; i >= 0 && i < len(results) { // not of an earlier Begin
			results[i].Len = int(order.Uint32(e[4:]))
		}
		q.seen++
	}
	return results
}

// Begin makes requests and does not wait. The next is Do, for none or more, or a
// reset.
func (d *Driver) Begin(n int, list ...Request) []Result {
	d.t.Helper()
	q := d.queues[n]
	if q.seen == q.added { // what is under way keeps its descriptors and buffers
		q.end = 0
	}
	q.first = q.end
	q.end += len(list)
	if q.end > requests {
		d.t.Fatal("too many requests at once")
	}
	results := make([]Result, len(list))
	for i, r := range list {
		results[i] = d.add(q, q.first+i, q.added+uint16(i), r)
	}
	q.added += uint16(len(list))
	q.avail.Store32(0, uint32(q.added)<<16)
	d.set(0x1000+4*uint64(n), 2, 0)
	return results
}

// add writes the descriptors of a request, from those of chain i on, and its place in
// the available ring.
func (d *Driver) add(q *queue, i int, place uint16, r Request) (out Result) {
	const next, write = 1, 2
	n, at := len(r.Read)+len(r.Write), q.base+3*page+uint64(i)*Buffers
	for k := range n {
		desc := d.ram[q.base+16*uint64(i*Chain+k):][:16]
		var size int
		var flags uint16
		if k < len(r.Read) {
			size = copy(d.ram[at:], r.Read[k])
		} else {
			size, flags = r.Write[k-len(r.Read)], write
			b := d.ram[at:][:size]
			clear(b)
			out.Write = append(out.Write, b)
		}
		if k < n-1 {
			flags |= next
		}
		order.PutUint64(desc, at)
		order.PutUint32(desc[8:], uint32(size))
		order.PutUint16(desc[12:], flags)
		order.PutUint16(desc[14:], uint16(i*Chain+k+1))
		at += uint64(size)
	}
	q.avail.Store16(4+2*int(place%Size), uint16(i*Chain))
	return out
}
