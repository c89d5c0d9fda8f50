// SPDX-License-Identifier: Apache-2.0

package virtio

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"

	"vmctl/monitor/bus"
	"vmctl/monitor/mem"
	"vmctl/monitor/pci"
)

// toy is a device of two queues that gives every chain back.
type toy struct {
	work     sync.WaitGroup
	features uint64
	starts   int
	stops    int
	closed   bool
	queues   []*Queue
	told     []int // by which files the first queue was to interrupt
}

const toyFeature = 1 << 5

func (*toy) Kind() Kind {
	return Kind{Type: 42, Class: 0xff0000, Features: toyFeature, Queues: 2, Size: 16}
}
func (*toy) Config() []byte     { return []byte{1, 2, 3, 4, 5, 6, 7, 8} }
func (*toy) Attach([]int) error { return nil }
func (d *toy) Start(features uint64, queues []*Queue) {
	d.starts++
	d.features, d.queues = features, queues
	queues[0].Direct(func(fd int) { d.told = append(d.told, fd) })
	for _, q := range queues {
		if q != nil {
			d.work.Go(func() {
				var c Chain
				for {
					for q.Pop(&c) {
						q.Push(c.Head, 0)
						q.Signal()
					}
					if q.Arm() && !q.Wait() {
						return
					}
				}
			})
		}
	}
}
func (d *toy) Stop()        { d.work.Wait(); d.stops++ }
func (d *toy) Close() error { d.closed = true; return nil }

// board is a machine with one device.
type board struct {
	t      testing.TB
	dev    *toy
	port   *Transport
	host   *pci.Host
	memory bus.Space
	ports  bus.Space
	ram    []byte
	broken []error

	mu    sync.Mutex // guards what follows
	bells map[uint64]int
	sent  chan int
}

func (b *board) Route(int, uint64, uint32) bool { return true }
func (b *board) Send(v int)                     { b.sent <- v }
func (b *board) File(v int) int                 { return 100 + v }

func (b *board) doorbell(addr uint64, fd int, on bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if old, there := b.bells[addr]; there == on || !on && old != fd {
		b.t.Errorf("doorbell at %#x: there %v, wanted %v", addr, there, on)
	}
	if delete(b.bells, addr); on {
		b.bells[addr] = fd
	}
	return nil
}

const bar = pci.WindowBase

func newBoard(t testing.TB) *board {
	t.Helper()
	b := &board{t: t, dev: new(toy), host: pci.NewHost(), ram: make([]byte, ramSize), bells: map[uint64]int{}, sent: make(chan int, 1000)}
	var f *pci.Function
	var err error
	b.port, f, err = NewTransport(b.dev, Env{
		Memory: mem.Over(b.ram), Messages: b, Doorbell: b.doorbell, Broken: func(err error) { b.broken = append(b.broken, err) },
	})
	if err == nil {
		_, err = b.host.Add(f)
		err = errors.Join(err, b.host.Attach(&b.ports, &b.memory))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.port.Close(); err != nil || !b.dev.closed || len(b.bells) != 0 {
			t.Errorf("close: %v, doorbells %v", err, b.bells)
		}
	})
	return b
}

func (b *board) config(reg int, data ...byte) { b.memory.Write(pci.ECAMBase+1<<15+uint64(reg), data) }

func (b *board) get(reg uint64, size int) (v uint64) {
	data := make([]byte, size)
	b.memory.Read(bar+reg, data)
	for i, d := range data {
		v |= uint64(d) << (8 * i)
	}
	return v
}

func (b *board) set(reg uint64, size int, v uint64) {
	b.memory.Write(bar+reg, order.AppendUint64(nil, v)[:size])
}

// negotiate goes as far as the features.
func (b *board) negotiate(features uint64) {
	b.config(4, 6, 0) // memory, bus master
	b.set(regStatus, 1, 0)
	b.set(regStatus, 1, 3)
	for i := range uint64(2) {
		b.set(regDriverSelect, 4, i)
		b.set(regDriver, 4, features>>(32*i)&0xffffffff)
	}
	b.set(regStatus, 1, 3|statusFeaturesOK)
}

// queue sets one up, with vectors.
func (b *board) queue(n, at uint64) {
	b.set(regQueueSelect, 2, n)
	b.set(regQueueSize, 2, 8)
	b.set(regQueueVector, 2, n+1)
	b.set(regDesc, 8, at+descAt)
	b.set(regAvail, 4, at+availAt)
	b.set(regUsed, 8, at+usedAt)
	b.set(regQueueEnable, 2, 1)
}

func (b *board) ready() {
	b.config(0x40+3*16+2*20+2, 0, 0x80) // MSI-X, behind the five capabilities of virtio
	b.set(regConfigVector, 2, 0)
	for v := range uint64(3) {
		b.set(vectorsAt+16*v+12, 4, 0)
	}
	b.set(regStatus, 1, 3|statusFeaturesOK|statusDriverOK)
}

func (b *board) start() {
	b.negotiate(FeatureVersion1 | FeatureEvent | toyFeature)
	b.queue(0, 0)
	b.ready()
}

func TestWhatADriverFinds(t *testing.T) {
	b := newBoard(t)
	b.config(4, 6, 0)
	var head [64]byte
	b.memory.Read(pci.ECAMBase+1<<15, head[:])
	if order.Uint32(head[:]) != 0x106a1af4 || head[8] != 1 || head[0x34] != 0x40 {
		t.Errorf("header %x", head)
	}
	if n := b.get(regNumQueues, 2); n != 2 {
		t.Errorf("%d queues", n)
	}
	if v := b.get(deviceAt+2, 4); v != 0x06050403 {
		t.Errorf("configuration %#x", v)
	}
	if v := b.get(deviceAt+8, 4); v != 0 {
		t.Errorf("behind it %#x", v)
	}
	features := b.get(regDevice, 4)
	b.set(regDeviceSelect, 4, 1)
	features |= b.get(regDevice, 4) << 32
	b.set(regDeviceSelect, 4, 2)
	if features != toyFeature|commonFeatures || b.get(regDevice, 4) != 0 {
		t.Errorf("features %#x", features)
	}
	b.set(regQueueSize, 2, MaxQueue)
	if n := b.get(regQueueSize, 2); n != 16 {
		t.Errorf("a queue of 16 descriptors has %d when a driver says so", n)
	}
	b.set(regQueueSelect, 2, 7)
	if n := b.get(regQueueSize, 2); n != 0 {
		t.Errorf("queue 7 has %d descriptors", n)
	}
}

func TestLifeOfADevice(t *testing.T) {
	b := newBoard(t)
	b.start()
	if b.dev.starts != 1 || b.dev.features != FeatureVersion1|FeatureEvent|toyFeature || b.dev.queues[0] == nil || b.dev.queues[1] != nil {
		t.Fatalf("%+v", b.dev)
	}
	if want := map[uint64]int{bar + notifyAt: b.port.queues[0].bell.fd}; !maps.Equal(b.bells, want) {
		t.Errorf("doorbells %v, want %v", b.bells, want)
	}
	d := &driver{t: t, ram: b.ram, size: 8, event: true}
	m := mem.Over(b.ram)
	d.avail, _ = m.Share(availAt, 4+16+2, 2)
	d.used, _ = m.Share(usedAt, 4+64+2, 4)
	d.desc(0, buffer{bufferAt, 4, 0, 0})
	for range 3 {
		d.add(0)
		b.set(notifyAt, 2, 0) // no kernel here that would take it
		if v := <-b.sent; v != 1 {
			t.Errorf("vector %d", v)
		}
		d.take()
		d.want()
	}
	// What is running is not to be changed.
	b.queue(0, 0x10000)
	if at := b.get(regDesc, 8); at != descAt {
		t.Errorf("the descriptors are at %#x", at)
	}
	move := func(to uint32) { b.config(0x10, byte(to), byte(to>>8), byte(to>>16), byte(to>>24)) }
	move(bar + 0x100000)
	if len(b.bells) != 1 || b.bells[bar+0x100000+notifyAt] == 0 {
		t.Errorf("doorbells after a move: %v", b.bells)
	}
	b.config(4, 0, 0)
	if len(b.bells) != 0 {
		t.Errorf("doorbells of a device that does not answer: %v", b.bells)
	}
	move(bar)
	b.config(4, 2, 0)
	b.set(regStatus, 1, 0)
	if b.dev.stops != 1 || len(b.bells) != 0 || b.get(regStatus, 1) != 0 {
		t.Errorf("after a reset: %+v, %v", b.dev, b.bells)
	}
	b.start()
	b.host.Reset()
	if b.dev.stops != 2 || len(b.bells) != 0 || len(b.broken) != 0 {
		t.Errorf("after the machine's reset: %+v, %v, %v", b.dev, b.bells, b.broken)
	}
}

// TestDirect: who interrupts in a queue's stead has the file of its vector while that is
// not masked, from start to stop.
func TestDirect(t *testing.T) {
	b := newBoard(t)
	wants := func(what string, fds ...int) {
		t.Helper()
		if !slices.Equal(b.dev.told, fds) {
			t.Errorf("%s: told %v, want %v", what, b.dev.told, fds)
		}
		b.dev.told = nil
	}
	mask := func(vector, v uint64) { b.set(vectorsAt+16*vector+12, 4, v) }
	b.start()
	wants("started", 101)
	mask(1, 1)
	mask(1, 0)
	wants("masked and not", pci.NoFile, 101)
	b.set(regQueueSelect, 2, 0)
	b.set(regQueueVector, 2, 2)
	wants("another vector", 102)
	b.set(regQueueVector, 2, 99)
	wants("none", pci.NoFile)
	b.set(regQueueVector, 2, 1)
	wants("the first again", 101)
	b.port.Pause()
	mask(1, 1)
	wants("paused")
	b.port.Resume()
	wants("goes on, masked")
	mask(1, 0)
	wants("not masked", 101)
	b.set(regStatus, 1, 0)
	mask(1, 1)
	mask(1, 0)
	wants("reset")
}

func TestNegotiation(t *testing.T) {
	for name, features := range map[string]uint64{
		"legacy": toyFeature, "not offered": FeatureVersion1 | 1<<6, "far": FeatureVersion1 | 1<<60,
	} {
		b := newBoard(t)
		b.negotiate(features)
		b.queue(0, 0)
		b.ready()
		if s := b.get(regStatus, 1); s != 3 || b.dev.starts != 0 {
			t.Errorf("%s: status %#x, %d starts", name, s, b.dev.starts)
		}
	}
}

func TestBrokenDriver(t *testing.T) {
	b := newBoard(t)
	for round := range 2 {
		b.negotiate(FeatureVersion1)
		b.queue(0, 0)
		b.ready()
		avail, err := mem.Over(b.ram).Share(availAt, 4, 4)
		if err != nil {
			t.Fatal(err)
		}
		avail.Store32(0, 200<<16)
		b.set(notifyAt, 2, 0)
		if v := <-b.sent; v != 0 {
			t.Errorf("vector %d, not that of the configuration", v)
		}
		if s := b.get(regStatus, 1); s&statusNeedsReset == 0 {
			t.Errorf("status %#x", s)
		}
		b.set(regStatus, 1, 0)
		if s := b.get(regStatus, 1); s != 0 || len(b.broken) != round+1 || !errors.Is(b.broken[round], ErrIndex) {
			t.Errorf("status %#x, told %v", s, b.broken)
		}
	}
	b.negotiate(FeatureVersion1)
	b.queue(0, ramSize)
	b.ready()
	if s := b.get(regStatus, 1); s&statusNeedsReset == 0 || b.dev.starts != 2 || !errors.Is(b.broken[2], mem.ErrRange) {
		t.Errorf("rings outside of memory: status %#x, told %v", s, b.broken)
	}
}

// Firmware reaches the BAR through configuration space.
func TestWindowInConfigurationSpace(t *testing.T) {
	b := newBoard(t)
	const window = 0x40 + 3*16 + 20 // behind three capabilities of 16 bytes and one of 20
	ask := func(offset uint64, n byte) {
		b.config(window+windowBAR, 0)
		b.config(window+windowOffset, order.AppendUint32(nil, uint32(offset))...)
		b.config(window+windowLength, n, 0, 0, 0)
	}
	read := func() []byte {
		data := make([]byte, 4)
		b.memory.Read(pci.ECAMBase+1<<15+window+windowData, data)
		return data
	}
	ask(deviceAt+4, 4)
	if got := read(); !bytes.Equal(got, []byte{5, 6, 7, 8}) {
		t.Errorf("configuration %x", got)
	}
	ask(regStatus, 1)
	b.config(window+windowData, 3)
	if s := b.port.status.Load(); s != 3 {
		t.Errorf("status %#x", s)
	}
	for _, odd := range []struct {
		offset uint64
		n      byte
	}{{barSize, 4}, {barSize - 2, 4}, {1, 2}, {0, 3}, {0, 0}, {0, 200}} {
		ask(odd.offset, odd.n)
		read()
		b.config(window+windowData, 1, 2, 3, 4)
	}
}

// A guest may do anything to a device; each access is 12 bytes of a stream.
func FuzzTransport(f *testing.F) {
	f.Add([]byte("an access ofan access of"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		b := newBoard(t)
		b.start()
		copy(b.ram[descAt:], stream)
		for ; len(stream) >= 12; stream = stream[12:] {
			at, size, data := uint64(order.Uint16(stream)), int(stream[2])%8+1, stream[4:12]
			base := uint64(bar)
			if stream[3]&1 != 0 {
				base, at = pci.ECAMBase+1<<15, at%256
			}
			if stream[3]&2 != 0 {
				at %= 64
			}
			if stream[3]&4 != 0 {
				b.memory.Read(base+at, bytes.Clone(data[:size]))
			} else {
				b.memory.Write(base+at, data[:size])
			}
			for len(b.sent) > 0 {
				<-b.sent
			}
		}
	})
}
