// SPDX-License-Identifier: Apache-2.0

// Package balloon is virtio's memory balloon: it takes pages of the guest's for the
// host when it is told to, gives them back when the guest runs out of memory, and gives
// the host the pages that the guest says are free, without being told. It has what the
// guest tells of its memory, too.
package balloon

import (
	"encoding/binary"
	"slices"
	"sync"

	"vmctl/monitor/mem"
	"vmctl/monitor/virtio"
	"vmctl/monitor/wire"
)

const (
	deviceType = 5
	class      = 0x00ff00 // none of PCI's own
	queueSize  = 64

	// PageSize is that of the balloon, in bytes, whatever the guest's is: virtio 1.2,
	// 5.5.6.
	PageSize = 4096

	inflateQueue   = 0
	deflateQueue   = 1
	statsQueue     = 2
	reportingQueue = 3 // those of features that are not offered are left out
	numQueues      = 4

	// maxRequest is how many bytes of page numbers a request may have. Linux sends
	// 1 KiB.
	maxRequest = 64 << 10
)

// Features (virtio 1.2, 5.5.3).
const (
	featureStats        = 1 << 1
	featureDeflateOnOOM = 1 << 2
	featureReporting    = 1 << 5
)

var order = binary.LittleEndian

// Device is the balloon.
type Device struct {
	memory *mem.Memory
	work   sync.WaitGroup
	bell   int // of the queue of statistics

	mu     sync.Mutex // guards what follows
	target uint32     // pages
	actual uint32     // pages, as far as the guest's requests tell
	stats  Stats
	asked  bool // for newer ones
}

// New makes one for a guest's memory.
func New(memory *mem.Memory) *Device { return &Device{memory: memory} }

// Kind is what the driver finds.
func (*Device) Kind() virtio.Kind {
	return virtio.Kind{Type: deviceType, Class: class, Features: featureStats | featureDeflateOnOOM | featureReporting, Queues: numQueues, Size: queueSize}
}

// Config has the target, and what the driver has reached, which it knows itself.
func (d *Device) Config() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return order.AppendUint32(order.AppendUint32(nil, d.target), d.actual)
}

// SetTarget says how much memory the balloon is to take, in bytes, and reports whether
// that is another target. The driver hears of it when the transport says that the
// configuration changed.
func (d *Device) SetTarget(bytes uint64) (changed bool) {
	pages := uint32(min(bytes, d.memory.Size()) / PageSize)
	d.mu.Lock()
	defer d.mu.Unlock()
	changed = d.target != pages
	d.target = pages
	return changed
}

// Sizes returns what the balloon is to take and what it has, in bytes. The latter is
// the guest's word.
func (d *Device) Sizes() (target, actual uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return uint64(d.target) * PageSize, uint64(d.actual) * PageSize
}

// Attach keeps what wakes the goroutine of statistics.
func (d *Device) Attach(bells []int) error {
	d.bell = bells[statsQueue]
	return nil
}

// Start serves the queues. A driver begins without a page in the balloon.
func (d *Device) Start(_ uint64, queues []*virtio.Queue) {
	if !slices.ContainsFunc(queues, func(q *virtio.Queue) bool { return q != nil && q.Resumed() }) {
		d.mu.Lock()
		d.actual, d.stats, d.asked = 0, Stats{}, false
		d.mu.Unlock()
	}
	for i, do := range map[int]func(*virtio.Chain) error{
		inflateQueue: d.inflate, deflateQueue: d.deflate, reportingQueue: d.reported,
	} {
		if q := queues[i]; q != nil {
			d.work.Go(func() { serve(q, do) })
		}
	}
	if q := queues[statsQueue]; q != nil {
		d.work.Go(func() { d.serveStats(q) })
	}
}

// Stop ends that.
func (d *Device) Stop() { d.work.Wait() }

// Close has nothing to free.
func (*Device) Close() error { return nil }

// Save writes what the balloon is to take, and has.
func (d *Device) Save(w *wire.Writer) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	w.U32(d.target)
	w.U32(d.actual)
	return nil
}

// Load reads it.
func (d *Device) Load(r *wire.Reader) {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := uint32(d.memory.Size() / PageSize)
	d.target, d.actual = min(r.U32(), all), min(r.U32(), all)
}

// serve does what comes on a queue. A request that is none breaks the device.
func serve(q *virtio.Queue, do func(*virtio.Chain) error) {
	var c virtio.Chain
	for {
		q.Disarm()
		for q.Pop(&c) {
			if err := do(&c); err != nil {
				q.Fail(err)
				break
			}
			q.Push(c.Head, 0)
			q.Signal()
		}
		if q.Arm() && !q.Wait() {
			return
		}
	}
}

// inflate gives the host the pages whose numbers a request has.
func (d *Device) inflate(c *virtio.Chain) error {
	var first, count uint64 // of a run of neighbours, which is given back at once
	flush := func() error {
		if count == 0 {
			return nil
		}
		b, err := d.memory.At(first*PageSize, count*PageSize)
		if err != nil {
			return err
		}
		return d.memory.Release(b)
	}
	pages, err := numbers(c, func(page uint64) error {
		switch {
		case count > 0 && page == first+count:
			count++
		case count > 0 && page+1 == first:
			first, count = page, count+1
		default:
			if err := flush(); err != nil {
				return err
			}
			first, count = page, 1
		}
		return nil
	})
	if err == nil {
		err = flush()
	}
	d.count(int64(pages))
	return err
}

// deflate has nothing to do but to count: the host gives a page when it is touched.
func (d *Device) deflate(c *virtio.Chain) error {
	pages, err := numbers(c, func(uint64) error { return nil })
	d.count(-int64(pages))
	return err
}

// count keeps within what there is, whatever a guest tells.
func (d *Device) count(pages int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.actual = uint32(min(max(int64(d.actual)+pages, 0), int64(d.memory.Size()/PageSize)))
}

// numbers calls do for each page number of a request, and returns how many there were.
// One may lie across two buffers.
func numbers(c *virtio.Chain, do func(page uint64) error) (n int, err error) {
	if len(c.Write) > 0 || c.ReadLen()%4 != 0 || c.ReadLen() > maxRequest {
		return 0, virtio.ErrRequest
	}
	var word [4]byte
	filled := 0
	for _, b := range c.Read {
		for len(b) > 0 {
			k := copy(word[filled:], b)
			b, filled = b[k:], filled+k
			if filled < len(word) {
				break
			}
			filled = 0
			if err := do(uint64(order.Uint32(word[:]))); err != nil {
				return n, err
			}
			n++
		}
	}
	return n, nil
}

// reported gives the host the pages that a request consists of. The guest may use them
// again at any time, and then has other ones.
func (d *Device) reported(c *virtio.Chain) error {
	if len(c.Read) > 0 {
		return virtio.ErrRequest
	}
	for _, b := range c.Write {
		if err := d.memory.Release(b); err != nil {
			return err
		}
	}
	return nil
}
