// SPDX-License-Identifier: Apache-2.0

package virtio

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"

	"vmctl/monitor/mem"
)

// driver is the other side of a queue, as a guest would write it: it looks at
// guest memory alone.
type driver struct {
	t     testing.TB
	ram   []byte
	size  int
	at    rings
	avail mem.Shared
	used  mem.Shared
	event bool

	added  uint16 // index of the available ring
	seen   uint16 // of the used ring
	kicked uint16 // added at the last notification
}

const (
	descAt    = 0x1000
	availAt   = 0x3000
	usedAt    = 0x4000
	tableAt   = 0x6000 // for indirect tables
	bufferAt  = 0x8000
	ramSize   = 1 << 20
	bothRings = FeatureEvent | FeatureIndirect
)

type pair struct {
	*driver
	q      *Queue
	life   *life
	errs   []error
	raised chan struct{}
}

// newPair makes a queue and its driver. Its interrupts can be waited for.
func newPair(t testing.TB, size int, features uint64) *pair {
	t.Helper()
	ram := make([]byte, ramSize)
	m := mem.Over(ram)
	d := &driver{t: t, ram: ram, size: size, at: rings{descAt, availAt, usedAt}, event: features&FeatureEvent != 0}
	p := &pair{driver: d, raised: make(chan struct{}, 1)}
	p.life = &life{fail: func(err error) { p.errs = append(p.errs, err) }}
	b, err := newBell()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.close() })
	p.q = &Queue{bell: b, life: p.life, event: d.event, multi: features&FeatureIndirect != 0, raise: func() {
		select {
		case p.raised <- struct{}{}:
		default:
		}
	}}
	if err := p.q.open(m, uint16(size), d.at); err != nil {
		t.Fatal(err)
	}
	n := uint64(size)
	if d.avail, err = m.Share(availAt, ringHead+2*n+2, 2); err != nil {
		t.Fatal(err)
	}
	if d.used, err = m.Share(usedAt, ringHead+8*n+2, 4); err != nil {
		t.Fatal(err)
	}
	return p
}

// buffer is a descriptor.
type buffer struct {
	addr        uint64
	n           uint32
	flags, next uint16
}

func (b buffer) put(p []byte) {
	binary.LittleEndian.PutUint64(p, b.addr)
	binary.LittleEndian.PutUint32(p[8:], b.n)
	binary.LittleEndian.PutUint16(p[12:], b.flags)
	binary.LittleEndian.PutUint16(p[14:], b.next)
}

// desc writes descriptors from number i on.
func (d *driver) desc(i int, list ...buffer) {
	for n, b := range list {
		b.put(d.ram[descAt+descSize*(i+n):])
	}
}

// add makes a chain available, and reports whether the device wants to know.
func (d *driver) add(head uint16) (kick bool) {
	d.avail.Store16(ringHead+2*(int(d.added)%d.size), head)
	d.added++
	d.avail.Store32(0, uint32(d.added)<<16)
	if !d.event {
		return d.used.Load16(0)&noNotify == 0
	}
	at := d.used.Load16(ringHead + 8*d.size)
	kick = d.added-at-1 < d.added-d.kicked
	if kick {
		d.kicked = d.added
	}
	return kick
}

// take returns a used chain.
func (d *driver) take() (head uint16, n uint32, ok bool) {
	if d.used.Load16(ringIndex) == d.seen {
		return 0, 0, false
	}
	e := d.ram[usedAt+ringHead+8*(int(d.seen)%d.size):]
	d.seen++
	return binary.LittleEndian.Uint16(e), binary.LittleEndian.Uint32(e[4:]), true
}

// want asks for an interrupt of the next used chain, and reports false when it is
// there.
func (d *driver) want() bool {
	if d.event {
		d.avail.Store16(ringHead+2*d.size, d.seen)
	}
	return d.used.Load16(ringIndex) == d.seen
}

func TestChains(t *testing.T) {
	p := newPair(t, 8, bothRings)
	p.desc(0,
		buffer{bufferAt, 16, descNext, 3}, buffer{}, buffer{},
		buffer{bufferAt + 64, 8, descNext | descWrite, 4}, buffer{bufferAt + 128, 4, descWrite, 9},
		buffer{tableAt, 2 * descSize, descIndirect, 0})
	buffer{bufferAt, 5, descNext, 1}.put(p.ram[tableAt:])
	buffer{bufferAt + 64, 6, descWrite, 0}.put(p.ram[tableAt+descSize:])
	copy(p.ram[bufferAt:], "what is to be read")
	p.add(0)
	p.add(5)
	var c Chain
	if !p.q.Pop(&c) || c.Head != 0 || c.ReadLen() != 16 || c.WriteLen() != 12 || len(c.Write) != 2 || string(c.Read[0]) != "what is to be re" {
		t.Fatalf("chain %+v, errors %v", c, p.errs)
	}
	copy(c.Write[1], "wrot")
	p.q.Push(c.Head, 12)
	if !p.q.Pop(&c) || c.Head != 5 || c.ReadLen() != 5 || c.WriteLen() != 6 {
		t.Fatalf("indirect chain %+v, errors %v", c, p.errs)
	}
	p.q.Push(c.Head, 6)
	if p.q.Pop(&c) {
		t.Error("a third chain")
	}
	for _, want := range [][2]uint32{{0, 12}, {5, 6}} {
		if head, n, ok := p.take(); !ok || uint32(head) != want[0] || n != want[1] {
			t.Errorf("used %d with %d bytes, want %v", head, n, want)
		}
	}
	if !bytes.Equal(p.ram[bufferAt+128:][:5], []byte("wrot\x00")) {
		t.Error("what was written is not in memory")
	}
}

func TestBrokenRules(t *testing.T) {
	fill := func(d *driver, n int, b buffer) {
		for i := range n {
			b.next = uint16(i + 1)
			d.desc(i, b)
		}
	}
	for name, c := range map[string]struct {
		do   func(d *driver)
		want error
	}{
		"loop":               {func(d *driver) { d.desc(0, buffer{bufferAt, 1, descNext, 1}, buffer{bufferAt, 1, descNext, 0}) }, ErrChain},
		"loop of one":        {func(d *driver) { d.desc(0, buffer{bufferAt, 1, descNext, 0}) }, ErrChain},
		"next outside":       {func(d *driver) { d.desc(0, buffer{bufferAt, 1, descNext, 8}) }, ErrDescriptor},
		"end outside":        {func(d *driver) { fill(d, 8, buffer{bufferAt, 1, descNext, 0}) }, ErrDescriptor},
		"head outside":       {func(d *driver) { d.avail.Store16(ringHead, 8) }, ErrDescriptor},
		"index ahead":        {func(d *driver) { d.avail.Store16(ringIndex, 100) }, ErrIndex},
		"index behind":       {func(d *driver) { d.avail.Store16(ringIndex, 0xffff) }, ErrIndex},
		"address outside":    {func(d *driver) { d.desc(0, buffer{ramSize, 1, 0, 0}) }, mem.ErrRange},
		"over the end":       {func(d *driver) { d.desc(0, buffer{ramSize - 1, 2, 0, 0}) }, mem.ErrRange},
		"address that wraps": {func(d *driver) { d.desc(0, buffer{^uint64(0), 2, 0, 0}) }, mem.ErrRange},
		"no bytes":           {func(d *driver) { d.desc(0, buffer{bufferAt, 0, 0, 0}) }, ErrEmpty},
		"read behind write":  {func(d *driver) { d.desc(0, buffer{bufferAt, 1, descNext | descWrite, 1}, buffer{bufferAt, 1, 0, 0}) }, ErrOrder},
		"odd table":          {func(d *driver) { d.desc(0, buffer{tableAt, 17, descIndirect, 0}) }, ErrIndirect},
		"empty table":        {func(d *driver) { d.desc(0, buffer{tableAt, 0, descIndirect, 0}) }, ErrIndirect},
		"large table":        {func(d *driver) { d.desc(0, buffer{tableAt, 9 * descSize, descIndirect, 0}) }, ErrIndirect},
		"table outside":      {func(d *driver) { d.desc(0, buffer{ramSize, descSize, descIndirect, 0}) }, mem.ErrRange},
		"table with a next":  {func(d *driver) { d.desc(0, buffer{tableAt, descSize, descIndirect | descNext, 0}) }, ErrIndirect},
		"table in a table": {func(d *driver) {
			d.desc(0, buffer{tableAt, descSize, descIndirect, 0})
			buffer{tableAt, descSize, descIndirect, 0}.put(d.ram[tableAt:])
		}, ErrIndirect},
		"loop in a table": {func(d *driver) {
			d.desc(0, buffer{tableAt, 2 * descSize, descIndirect, 0})
			buffer{bufferAt, 1, descNext, 0}.put(d.ram[tableAt:])
		}, ErrChain},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, 8, bothRings)
			p.add(0)
			c.do(p.driver)
			var got Chain
			for range 3 {
				if p.q.Pop(&got) {
					t.Fatalf("took %+v", got)
				}
			}
			if len(p.errs) != 1 || !errors.Is(p.errs[0], c.want) {
				t.Errorf("told %v, want %v once", p.errs, c.want)
			}
			if !p.q.Over() || !p.q.Arm() {
				t.Error("goes on")
			}
		})
	}
	p := newPair(t, 8, 0)
	p.desc(0, buffer{tableAt, descSize, descIndirect, 0})
	p.add(0)
	if p.q.Pop(new(Chain)) || !errors.Is(p.errs[0], ErrIndirect) {
		t.Error("a table that was not agreed on")
	}
}

func TestTooManyBytes(t *testing.T) {
	p := newPair(t, 256, bothRings)
	p.q.mem = mem.Over(make([]byte, 64<<20)) // untouched: no real memory
	for i := range 65 {
		p.desc(i, buffer{0, 64 << 20, descNext, uint16(i + 1)})
	}
	p.add(0)
	if p.q.Pop(new(Chain)) || !errors.Is(p.errs[0], ErrTooLong) {
		t.Errorf("told %v", p.errs)
	}
}

func TestOpenRefuses(t *testing.T) {
	m := mem.Over(make([]byte, ramSize))
	for _, c := range []struct {
		size uint16
		at   rings
		want error
	}{
		{0, rings{descAt, availAt, usedAt}, ErrQueueSize},
		{3, rings{descAt, availAt, usedAt}, ErrQueueSize},
		{512, rings{descAt, availAt, usedAt}, ErrQueueSize},
		{8, rings{descAt + 8, availAt, usedAt}, mem.ErrAlign},
		{8, rings{descAt, availAt + 1, usedAt}, mem.ErrAlign},
		{8, rings{descAt, availAt, usedAt + 2}, mem.ErrAlign},
		{8, rings{ramSize - 112, availAt, usedAt}, mem.ErrRange},
		{8, rings{descAt, ramSize - 20, usedAt}, mem.ErrRange},
		{8, rings{descAt, availAt, ramSize - 68}, mem.ErrRange},
	} {
		var q Queue
		if err := q.open(m, c.size, c.at); !errors.Is(err, c.want) {
			t.Errorf("%d at %+v: %v, want %v", c.size, c.at, err, c.want)
		}
	}
}

func TestWhoWantsToKnow(t *testing.T) {
	raised := func(p *pair) bool {
		select {
		case <-p.raised:
			return true
		default:
			return false
		}
	}
	for _, features := range []uint64{0, bothRings} {
		p := newPair(t, 4, features)
		p.desc(0, buffer{bufferAt, 1, 0, 0})
		for round := range uint16(40000) { // the indices go round
			if !p.q.Arm() {
				t.Fatal("there is something already")
			}
			if !p.add(0) {
				t.Fatalf("round %d: an armed queue gets no notification", round)
			}
			p.q.Disarm()
			if p.add(0) {
				t.Fatalf("round %d: a disarmed queue gets one", round)
			}
			if p.q.Arm() {
				t.Fatal("Arm does not see what is there")
			}
			var c Chain
			p.want()
			for p.q.Pop(&c) {
				p.q.Push(c.Head, 0)
			}
			if p.q.Signal(); !raised(p) {
				t.Fatalf("round %d: no interrupt", round)
			}
			if p.q.Signal(); raised(p) {
				t.Fatal("an interrupt for nothing")
			}
			p.take()
			p.take()
		}
		if features != 0 {
			continue
		}
		p.avail.Store32(0, uint32(p.added)<<16|noInterrupt)
		p.q.Push(0, 0)
		if p.q.Signal(); raised(p) {
			t.Error("an interrupt that nobody wants")
		}
	}
}

// A driver and a device on two goroutines, each asleep when there is nothing to
// do: whatever the order, no notification and no interrupt is lost, and the race
// detector sees that memory is handed over.
func TestDriverAndDevice(t *testing.T) {
	const rounds = 20000
	for _, features := range []uint64{0, bothRings} {
		t.Run(fmt.Sprint(features != 0), func(t *testing.T) {
			p := newPair(t, 8, features)
			var device sync.WaitGroup
			device.Go(func() { echo(p.q) })
			free := []uint16{0, 2, 4, 6}
			sent, back := uint32(0), 0
			want := map[uint16]uint32{}
			for back < rounds {
				for len(free) > 0 && sent < rounds {
					head := free[0]
					free = free[1:]
					sent++
					want[head] = sent
					in, out := uint64(bufferAt+int(head)*64), uint64(bufferAt+int(head)*64+32)
					binary.LittleEndian.PutUint32(p.ram[in:], sent)
					p.desc(int(head), buffer{in, 4, descNext, head + 1}, buffer{out, 4, descWrite, 0})
					if p.add(head) {
						p.q.bell.ring()
					}
				}
				head, n, ok := p.take()
				if !ok {
					if p.want() {
						<-p.raised
					}
					continue
				}
				got := binary.LittleEndian.Uint32(p.ram[bufferAt+int(head)*64+32:])
				if n != 4 || got != want[head]+1 {
					t.Fatalf("%d came back as %d, with %d bytes", want[head], got, n)
				}
				free = append(free, head)
				back++
			}
			p.life.stopping.Store(true)
			p.q.bell.ring()
			device.Wait()
			if len(p.errs) != 0 {
				t.Error(p.errs)
			}
		})
	}
}

// echo gives each number back, one more.
func echo(q *Queue) {
	var c Chain
	for {
		q.Disarm()
		for q.Pop(&c) {
			binary.LittleEndian.PutUint32(c.Write[0], binary.LittleEndian.Uint32(c.Read[0])+1)
			q.Push(c.Head, 4)
			q.Signal()
		}
		if q.Arm() && !q.Wait() {
			return
		}
	}
}

// Guest memory may hold anything: Pop ends, gives nothing outside of it, and
// never more than the queue has room for.
func FuzzQueue(f *testing.F) {
	f.Add([]byte{0, 0, 1, 0, 0, 0}, uint8(3))
	f.Add(bytes.Repeat([]byte{0xff}, 400), uint8(8))
	f.Fuzz(func(t *testing.T, image []byte, log uint8) {
		p := newPair(t, 1<<(log%9), bothRings)
		// Much of the image is descriptors, so that chains come about.
		n := copy(p.ram[descAt:][:p.size*descSize], image)
		copy(p.ram[availAt:], image[n:])
		copy(p.ram[tableAt:], image[n/2:])
		var c Chain
		taken := 0
		for p.q.Pop(&c) {
			if taken++; taken > p.size {
				t.Fatalf("%d chains of a queue of %d", taken, p.size)
			}
			if len(c.Read)+len(c.Write) > p.size || c.ReadLen()+c.WriteLen() > maxChainBytes {
				t.Fatalf("a chain of %d buffers", len(c.Read)+len(c.Write))
			}
			for _, b := range append(c.Read, c.Write...) {
				if len(b) == 0 || cap(b) != len(b) {
					t.Fatal("a buffer that reaches further than it should")
				}
			}
			p.q.Push(c.Head, 0)
			p.q.Signal()
		}
		p.q.Arm()
		if len(p.errs) > 1 {
			t.Fatalf("told %d times", len(p.errs))
		}
	})
}

// TestNoMoreThanTheQueue: a driver that names the same descriptors again before
// they are given back has no end of requests under way.
func TestNoMoreThanTheQueue(t *testing.T) {
	const size = 8
	p := newPair(t, size, 0)
	p.desc(0, buffer{addr: bufferAt, n: 16})
	var c Chain
	for range size {
		p.add(0)
		if !p.q.Pop(&c) {
			t.Fatalf("refused: %v", p.errs)
		}
	}
	p.add(0)
	if p.q.Pop(&c) || len(p.errs) != 1 || !errors.Is(p.errs[0], ErrIndex) {
		t.Errorf("errors %v, want %v", p.errs, ErrIndex)
	}
}
