// SPDX-License-Identifier: Apache-2.0

//go:build lab

package vmtest_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// Where a hostile guest finds what it plays with, in a machine of 256 MiB.
const (
	ramEnd     = 256 << 20
	ecam       = 0xc0000000
	slotSize   = 1 << 15
	window     = 0xc0100000
	barSize    = 0x4000
	windowEnd  = 0xfec00000
	windowAt   = 0x84 // in configuration space: into the BAR
	msixAt     = 0x9a
	notifyAt   = 0x1000
	vectorsAt  = 0x2000
	arena      = 64 << 20 // what devices are to write to: a part for each
	part       = 8 << 20
	queueBytes = 1 << 20
	queueSize  = 16
	needsReset = 0x40
)

// prey is a device that a hostile guest plays with.
type prey struct {
	name   string
	queues int
	config uint64 // its configuration space
	bar    uint64 // at power-on
	memory uint64 // part of the arena
}

// hostile makes the program of a hostile guest. The same seed makes the same one.
type hostile struct {
	code
	*rand.Rand
	prey  []prey
	added map[uint64]uint16 // by queue: what was made available
}

// newPrey numbers devices in the order of the bus.
func newPrey(names ...string) (list []prey) {
	queues := map[string]int{"rng": 1, "console": 2, "nic0": 2, "balloon": 4, "vsock": 3}
	for i, name := range names {
		list = append(list, prey{
			name: name, queues: max(queues[name], 1), config: ecam + slotSize*uint64(i+1),
			bar: window + barSize*uint64(i), memory: arena + part*uint64(i),
		})
	}
	return list
}

// Two processors: the second begins at a page of memory, and says when it is done.
const (
	secondPage = 0xff
	secondDone = 0x8000
)

// program is as many steps at random as there is room for, with company or without. In
// the end all devices are broken in the same way, and each tells that it is.
func program(seed uint64, devices []prey, room int, company bool) code {
	h, end := newHostile(seed, 0, devices), newHostile(seed, 1, devices)
	if company {
		h.wake()
		end.until(secondDone, 1, 1<<31)
	}
	h.deaf()
	h.say(begins(seed))
	for _, d := range devices {
		h.begin(d, queueSize)
	}
	for _, d := range devices {
		end.breakDown(d)
	}
	end.say(fmt.Sprintf("\r\nhostile guest %d: ", seed))
	for _, d := range devices {
		end.sayAt(d.bar + 20)
	}
	end.say(" ends\r\n")
	end.halt()
	h.steps(room - len(end.code))
	return append(h.code, end.code...)
}

// second is what the second processor does meanwhile.
func second(seed uint64, devices []prey, room int) code {
	h, end := newHostile(seed, 2, devices), newHostile(seed, 3, devices)
	h.deaf()
	end.store(1, secondDone, 1)
	end.halt()
	h.steps(room - len(end.code))
	return append(h.code, end.code...)
}

func newHostile(seed, stream uint64, devices []prey) *hostile {
	return &hostile{Rand: rand.New(rand.NewPCG(seed, stream)), prey: devices, added: map[uint64]uint16{}}
}

// steps fills the room with steps.
func (h *hostile) steps(room int) {
	for {
		before := len(h.code)
		if h.step(); len(h.code) > room {
			h.code = h.code[:before]
			return
		}
	}
}

func begins(seed uint64) string { return fmt.Sprintf("\r\nhostile guest %d begins\r\n", seed) }

// pick is one of some values.
func pick[T any](h *hostile, values ...T) T { return values[h.IntN(len(values))] }

func (h *hostile) size() int { return 1 << h.IntN(4) }

// value is often one at which things change.
func (h *hostile) value() uint64 {
	switch h.IntN(3) {
	case 0:
		return pick[uint64](h, 0, 1, 2, 4, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0xffff, 1<<31-1, 1<<31, 1<<32-1, 1<<32, 1<<63, 1<<64-1)
	case 1:
		return h.Uint64N(256)
	}
	return h.Uint64()
}

// address is one that a device gets for some bytes: in its part of the arena, or where
// it must not go.
func (h *hostile) address(d prey, n uint64) uint64 {
	if h.IntN(16) == 0 {
		return pick(h, ramEnd-h.Uint64N(4096), ramEnd, ramEnd+h.Uint64N(1<<30), ecam+h.Uint64N(1<<20), d.bar+h.Uint64N(barSize),
			0xfee00000, 1<<32-h.Uint64N(64), 1<<32, 1<<40, 1<<52, -h.Uint64N(4096), 1<<63)
	}
	at := d.memory + h.Uint64N(part-n)
	if h.IntN(4) > 0 {
		at &^= 15
	}
	return at
}

// length is one of a buffer. What does not lie in a part is longer than all memory.
func (h *hostile) length(d prey) uint64 {
	switch h.IntN(8) {
	case 0:
		return 0
	case 1:
		return pick[uint64](h, ramEnd, 1<<31, 1<<32-1)
	case 2:
		if d.name != "console" { // all of it would be shown
			return h.Uint64N(part)
		}
	}
	return h.fair(d, h.Uint64N(4), 4)
}

// fair is a length that drivers use for the k-th buffer of some.
func (h *hostile) fair(d prey, k, count uint64) uint64 {
	switch {
	case d.disk() && k == 0:
		return 16
	case d.disk() && k == count-1:
		return 1
	case d.disk():
		return pick[uint64](h, 16, 512, 1024, 4096)
	case d.name == "vsock" && k == 0:
		return 44
	}
	return pick(h, 1, 4, 8, 12, 16, 44, 512, 1024, 1526, 4096, 1+h.Uint64N(64<<10), 1+h.Uint64N(64))
}

func (h *hostile) step() {
	d := pick(h, h.prey...)
	switch h.IntN(20) {
	case 0, 1:
		h.port()
	case 2:
		h.configByPorts()
	case 3, 4:
		h.configByMemory(d)
	case 5, 6, 7:
		h.registers(d)
	case 8:
		h.elsewhere()
	case 9:
		h.vectors(d)
	case 10:
		h.begin(d, pick[uint64](h, queueSize, queueSize, 1, 3, 256, 512, 0xffff))
	case 11:
		h.notify(d, h.IntN(8), h.size())
	case 12:
		h.pause(uint32(h.IntN(1 << 16)))
	case 13:
		q := d.queue(h.IntN(d.queues))
		h.store(4, q+0x1000, h.value())
		h.store(8, q+h.Uint64N(0x3000), h.value())
	default:
		h.requests(d)
	}
}

// ports are those that somebody answers at, in the monitor or in KVM, and how many.
var ports = []struct{ first, n int }{
	{0x20, 2}, {0x40, 4}, {0x60, 5}, {0x70, 2}, {0x80, 1}, {0xa0, 2}, {0x4d0, 2}, {0x505, 1}, {0x510, 12},
	{0x600, 2}, {0x608, 8}, {0x610, 12}, {0x610, 12}, {com1, 8}, {com1, 8}, {0xcf8, 8}, {0xcf8, 8}, {0, 1 << 16},
}

// tame takes from what is written to ports what would end or reset the machine.
func tame(port, size int, v uint32) uint32 {
	for i := range size {
		bit := func(n int) uint32 { return 1 << (8*i + n) }
		switch port + i {
		case 0x64:
			v |= bit(0)
		case 0x505:
			v &^= bit(0)
		case 0x600, 0x60d:
			v &^= bit(5)
		case 0xcf9:
			v &^= bit(2)
		}
	}
	return v
}

// port accesses ports by odd sizes, beside their begins and across their ends.
func (h *hostile) port() {
	p := pick(h, ports...)
	port, size := min(p.first+h.IntN(p.n+1), 0xffff), pick(h, 1, 2, 4)
	d, n := pick(h, h.prey...), 1+h.IntN(64)
	wild := func() bool { return tame(port, size, 0) == 0 && tame(port, size, 1<<32-1) == 1<<32-1 }
	switch h.IntN(6) {
	case 0, 1:
		h.in(size, uint16(port))
	case 2:
		h.ins(size, uint16(port), d.memory+h.Uint64N(part-256), uint32(n))
	case 3:
		if wild() {
			h.outs(size, uint16(port), d.memory+h.Uint64N(part-256), uint32(n))
		}
	default:
		h.out(size, uint16(port), tame(port, size, uint32(h.value())))
	}
}

func (h *hostile) configByPorts() {
	size := pick(h, 1, 2, 4)
	h.out(4, 0xcf8, uint32(pick(h, 1<<31|h.Uint64N(uint64(len(h.prey)+2))<<11|h.Uint64N(256), h.value())))
	port := uint16(0xcfc + h.IntN(5))
	if h.IntN(2) == 0 {
		h.in(size, port)
	} else {
		h.out(size, port, uint32(h.value()))
	}
}

// configByMemory changes configuration space, and puts the BAR where it must not be.
func (h *hostile) configByMemory(d prey) {
	switch h.IntN(6) {
	case 0:
		h.store(4, d.config+0x10, pick(h, h.value(), window+h.Uint64N(windowEnd-window), windowEnd-barSize, windowEnd-16, ecam, 0xfee00000, arena, pick(h, h.prey...).bar))
		h.store(2, d.config+4, pick[uint64](h, 2, 6, h.value()))
	case 1: // the window into the BAR
		h.store(1, d.config+windowAt+4, pick[uint64](h, 0, 0, 0, h.value()))
		h.store(4, d.config+windowAt+8, pick(h, h.Uint64N(barSize), h.Uint64N(64), h.value()))
		h.store(4, d.config+windowAt+12, pick[uint64](h, 1, 2, 4, h.value()))
		h.access(d.config+windowAt+16, h.size())
	case 2:
		h.store(2, d.config+msixAt, pick[uint64](h, 0, 0x8000, 0xc000, h.value()))
	default:
		h.access(d.config+pick(h, h.Uint64N(256), h.Uint64N(4096), h.Uint64N(slotSize)), h.size())
	}
	if h.IntN(2) == 0 {
		h.home(d)
	}
}

// home puts a device back where it was.
func (h *hostile) home(d prey) {
	h.store(2, d.config+4, 0)
	h.store(4, d.config+0x10, d.bar)
	h.store(2, d.config+4, 6)
}

func (h *hostile) access(at uint64, size int) {
	switch h.IntN(4) {
	case 0:
		h.load(size, at)
	case 1:
		h.add(size, at)
	default:
		h.store(size, at, h.value())
	}
}

// registers accesses the BAR, most of it where there are registers.
func (h *hostile) registers(d prey) {
	at := pick(h, h.Uint64N(56), h.Uint64N(56), 0x400+h.Uint64N(4), 0x800+h.Uint64N(64), notifyAt+h.Uint64N(64), vectorsAt+h.Uint64N(128), vectorsAt+2048+h.Uint64N(16), h.Uint64N(barSize))
	if h.IntN(3) > 0 {
		at &^= 3
	}
	switch h.IntN(8) {
	case 0:
		h.copy(d.bar+at, d.memory+h.Uint64N(part-256), uint32(h.IntN(64)))
	case 1:
		h.copy(d.bar+at, pick(h, h.prey...).bar+h.Uint64N(barSize-64), uint32(h.IntN(64)))
	default:
		h.access(d.bar+at, h.size())
	}
}

// elsewhere accesses what is near no device, or in KVM.
func (h *hostile) elsewhere() {
	at := pick[uint64](h, ramEnd, ecam, window, windowEnd, 0xfec00000, 0xfec00010, 0xfee00020, 0xfee00300, 0xfee01000, 0xfffc0000, ramEnd+h.Uint64N(ecam-ramEnd), 1<<32-16)
	h.access(at+h.Uint64N(16)-8, h.size())
}

// vectors changes the table of messages.
func (h *hostile) vectors(d prey) {
	at := d.bar + vectorsAt + 16*h.Uint64N(6)
	h.store(8, at, pick(h, 0xfee00000+h.Uint64N(256)<<12, h.value()))
	h.store(8, at+8, pick(h, h.Uint64N(1<<16), h.value()&^(1<<32)))
	h.store(2, d.config+msixAt, 0x8000)
	h.store(2, d.bar+16, h.Uint64N(8))
}

func (d prey) disk() bool { return strings.HasPrefix(d.name, "disk") }

func (d prey) queue(n int) uint64 { return d.memory + queueBytes*uint64(n) }

// begin starts a device as a driver does, with rings that may be anywhere.
func (h *hostile) begin(d prey, size uint64) {
	h.home(d)
	odd := size != queueSize
	ring := func(at uint64) uint64 {
		if odd && h.IntN(4) == 0 {
			return h.address(d, 4096)
		}
		return at
	}
	h.store(1, d.bar+20, 0)
	h.store(1, d.bar+20, 3)
	for n, bits := range []uint32{1<<32 - 1, 1} {
		if odd && h.IntN(2) == 0 {
			bits &= h.Uint32() | 1
		}
		h.store(4, d.bar, uint64(n))
		h.store(4, d.bar+8, uint64(n))
		h.move(d.bar+12, d.bar+4, bits)
	}
	h.store(1, d.bar+20, 11)
	for n := range d.queues {
		q := d.queue(n)
		h.added[q] = 0
		h.store(4, q+0x1000, 0)
		h.store(2, d.bar+22, uint64(n))
		h.store(2, d.bar+24, size)
		h.store(2, d.bar+26, h.Uint64N(6))
		h.store(8, d.bar+32, ring(q))
		h.store(8, d.bar+40, ring(q+0x1000))
		h.store(8, d.bar+48, ring(q+0x2000))
		h.store(2, d.bar+28, 1)
	}
	h.store(1, d.bar+20, 15)
}

func (h *hostile) notify(d prey, n, size int) {
	h.store(size, d.bar+notifyAt+4*uint64(n), uint64(n))
}

// requests makes some available, mostly to a device that works.
func (h *hostile) requests(d prey) {
	if h.IntN(2) == 0 {
		h.begin(d, queueSize)
	}
	for range 1 + h.IntN(6) {
		h.chain(d, h.IntN(d.queues), h.IntN(8) == 0)
	}
	if h.IntN(2) == 0 { // it may answer
		h.pause(uint32(h.IntN(1 << 18)))
	}
}

// chain makes one available that may be a request; wild, it may be none.
func (h *hostile) chain(d prey, n int, wild bool) {
	const next, write, indirect = 1, 2, 4
	odd := func(n int) bool { return wild && h.IntN(n) == 0 }
	q, count := d.queue(n), 1+h.Uint64N(4)
	head := 4 * h.Uint64N(queueSize/4)
	at, i, writes := q, head, h.Uint64N(count+1)
	if d.disk() && !wild {
		count, writes = 3, pick[uint64](h, 1, 2, 2)
	}
	if h.IntN(8) == 0 { // in a table of its own
		at, i = q+0x3000, 0
		size := 16 * count
		if odd(2) {
			size = h.Uint64N(5000)
		}
		h.descriptor(q+16*head, at, size, indirect, 0)
	}
	for k := range count {
		size, flags, follow := h.fair(d, k, count), uint64(0), i+1
		if odd(4) {
			size = h.length(d)
		}
		addr := d.memory
		if size < part {
			addr += h.Uint64N(part - size)
		}
		if odd(4) {
			addr = h.address(d, min(size, part-1))
		}
		if k < count-1 || odd(8) {
			flags |= next
		}
		if k >= writes != odd(8) {
			flags |= write
		}
		if odd(8) {
			flags = h.Uint64N(16)
		}
		if odd(8) {
			follow = pick(h, h.Uint64N(queueSize+2), head, 0xffff)
		}
		if k < 2 && addr >= d.memory && addr < d.memory+part-64 {
			h.request(d, addr, k > 0)
		}
		h.descriptor(at+16*i, addr, size, flags, follow)
		i = follow % queueSize
	}
	if odd(4) {
		head = h.Uint64N(queueSize + 1)
	}
	h.store(2, q+0x1004+2*uint64(h.added[q]%queueSize), head)
	h.added[q]++
	h.store(4, q+0x1000, uint64(h.added[q])<<16|h.Uint64N(2))
	h.notify(d, n, 2)
}

func (h *hostile) descriptor(at, addr, size, flags, next uint64) {
	h.store(8, at, addr)
	h.store(8, at+8, size&(1<<32-1)|flags<<32|next<<48)
}

// request writes what begins a request of the device, more or less, or what follows.
func (h *hostile) request(d prey, at uint64, follows bool) {
	words := []uint64{h.value(), h.value()}
	sector := pick(h, h.Uint64N(2048), h.Uint64N(2048), h.value())
	switch {
	case d.disk() && !follows:
		words = []uint64{pick[uint64](h, 0, 1, 1, 4, 8, 11, 13, h.value()), sector}
	case d.disk():
		words = []uint64{sector, pick(h, h.Uint64N(64), h.value()) | h.Uint64N(2)<<32}
	case d.name == "vsock" && !follows:
		words = []uint64{
			pick(h, 3, h.value()), pick(h, 2, h.value()), h.Uint64N(4) | h.Uint64N(4)<<32, h.Uint64N(4096) | 1<<32 | h.Uint64N(9)<<48,
			h.Uint64N(4) | h.value()<<32, h.value(),
		}
	case d.name == "balloon": // pages of the arena, or none
		page := func() uint64 { return pick(h, at>>12+h.Uint64N(4), at>>12, 1<<20+h.Uint64N(1<<30), 1<<32-1) }
		for i := range words {
			words[i] = page() | page()<<32
		}
	}
	for i, w := range words {
		h.store(8, at+8*uint64(i), w)
	}
}

// breakDown starts a device and makes more available than a queue has room for.
func (h *hostile) breakDown(d prey) {
	h.begin(d, queueSize)
	for n := range d.queues {
		h.store(4, d.queue(n)+0x1000, 0x8000<<16)
		h.notify(d, n, 2)
	}
	h.until(d.bar+20, needsReset, 1<<16)
}
