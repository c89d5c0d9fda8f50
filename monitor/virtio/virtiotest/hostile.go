// SPDX-License-Identifier: Apache-2.0

package virtiotest

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"vmctl/monitor/virtio"
)

// hostileSteps is how much of a program is run: what follows is not looked at.
const hostileSteps = 512

// Hostile lets a guest that follows no rule loose on a device: program says, step by
// step, what it writes and reads, in configuration space, in the BAR and in the memory
// where its rings are. Whatever it does, the device must neither panic nor hang, must
// stay within memory, and must work again after a reset.
func Hostile(t testing.TB, dev virtio.Device, program []byte) {
	d := New(t, dev, 0)
	d.run(program)
	d.recover()
}

// run does the steps of a program.
func (d *Driver) run(program []byte) {
	p := steps{rest: program}
	for n := 0; n < hostileSteps && len(p.rest) > 0; n++ {
		d.step(&p)
	}
}

// recover sees that the device works again after a reset.
func (d *Driver) recover() {
	const command, where, msix = slot + 4, slot + 0x10, slot + 0x9a
	d.memory.Write(command, []byte{0, 0})
	d.memory.Write(where, order.AppendUint32(nil, bar))
	d.memory.Write(command, []byte{6, 0})
	d.memory.Write(msix, []byte{0, 0x80})
	d.Reset()
	d.Reset() // does nothing
	d.Start(0)
	if status := d.status(); status != 15 {
		d.t.Errorf("after a reset the status is %#x", status)
	}
	d.Reset()
}

// Seeds are programs that each begin another way: at random, and with requests that a
// device finds.
func Seeds(f *testing.F) {
	f.Helper()
	f.Add([]byte{})
	for seed := range byte(8) {
		r := rand.NewChaCha8([32]byte{seed})
		program := make([]byte, 4096)
		r.Read(program) // never fails
		f.Add(program)
	}
	// A chain of two buffers in each queue, made available again and again.
	chain := []byte{4, 0, 0, 0, 0x30, 0, 16, 0, 0, 1, 1, 4, 0, 1, 0, 0x31, 0, 16, 0, 0, 2, 0, 6, 0, 0, 6, 1, 0}
	f.Add(bytes.Repeat(chain, 16))
}

// steps takes a program apart; behind its end are zeros.
type steps struct{ rest []byte }

func (p *steps) take(n int) []byte {
	b := make([]byte, n)
	p.rest = p.rest[copy(b, p.rest):]
	return b
}

func (p *steps) byte() byte     { return p.take(1)[0] }
func (p *steps) short() int     { return int(order.Uint16(p.take(2))) }
func (p *steps) size() int      { return 1 << (p.byte() % 4) }
func (p *steps) pick(n int) int { return int(p.byte()) % n }

func (d *Driver) step(p *steps) {
	const barSize = 0x4000
	switch p.byte() % 9 {
	case 0:
		at := uint64(p.short() % page)
		d.memory.Write(slot+at, p.take(p.size()))
	case 1:
		at := uint64(p.short() % page)
		d.memory.Read(slot+at, make([]byte, p.size()))
	case 2:
		at := uint64(p.short() % barSize)
		d.memory.Write(bar+at, p.take(p.size()))
	case 3:
		at := uint64(p.short() % barSize)
		d.memory.Read(bar+at, make([]byte, p.size()))
	case 4: // a descriptor
		q := d.queues[p.pick(len(d.queues))]
		desc := d.ram[q.base+16*uint64(p.pick(Size)):][:16]
		order.PutUint64(desc, uint64(p.short())<<p.pick(8)+q.base)
		order.PutUint32(desc[8:], uint32(p.short())<<p.pick(4))
		order.PutUint16(desc[12:], uint16(p.byte()%8))
		order.PutUint16(desc[14:], uint16(p.pick(Size+2)))
	case 5: // the available ring
		q := d.queues[p.pick(len(d.queues))]
		q.avail.Store16(4+2*p.pick(Size), uint16(p.pick(Size+2)))
		q.avail.Store32(0, uint32(p.short())<<16|uint32(p.byte()&1))
	case 6: // one more of it, and a notification
		i := p.pick(len(d.queues))
		q := d.queues[i]
		q.added++
		q.avail.Store16(4+2*(int(q.added-1)%Size), uint16(p.pick(Size)))
		q.avail.Store32(0, uint32(q.added)<<16)
		d.set(0x1000+4*uint64(i), 2, uint64(i))
	case 7: // what is in a buffer
		q := d.queues[p.pick(len(d.queues))]
		copy(d.ram[q.base+3*page+uint64(p.short()):], p.take(16))
	case 8:
		d.Reset()
		d.Start(0)
	}
}

func (d *Driver) status() byte {
	var b [1]byte
	d.memory.Read(bar+20, b[:])
	return b[0]
}
