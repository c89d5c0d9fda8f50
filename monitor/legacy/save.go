// SPDX-License-Identifier: Apache-2.0

package legacy

import (
	"time"

	"vmctl/monitor/wire"
)

// Each device writes what the guest can tell apart, and reads it where it was never
// touched. The interrupt chips are what they were by then: a line that was up is
// raised again.

// Save writes the registers and what the guest has not read.
func (u *UART) Save(w *wire.Writer) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, v := range []uint8{u.ier, u.lcr, u.mcr, u.scr, u.divisor[0], u.divisor[1]} {
		w.U8(v)
	}
	w.Bool(u.fifo)
	w.Bool(u.sent)
	in := make([]byte, u.inLen)
	for i := range in {
		in[i] = u.in[(u.inHead+i)%backlog]
	}
	w.Blob(in)
}

// Load reads them.
func (u *UART) Load(r *wire.Reader) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, v := range []*uint8{&u.ier, &u.lcr, &u.mcr, &u.scr, &u.divisor[0], &u.divisor[1]} {
		*v = r.U8()
	}
	u.fifo, u.sent = r.Bool(), r.Bool()
	u.inHead, u.inLen = 0, copy(u.in[:], r.Blob(backlog))
	u.update()
}

// Save writes the cells, and how far the guest's clock is from the host's.
func (c *RTC) Save(w *wire.Writer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w.U8(c.index)
	w.Fixed(c.cells[:])
	w.U64(uint64(c.offset))
	for _, v := range c.held.fields() {
		w.U32(uint32(*v))
	}
}

// Load reads them. The clock went on meanwhile.
func (c *RTC) Load(r *wire.Reader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index = r.U8() % rtcCells
	r.Fixed(c.cells[:])
	c.offset = time.Duration(r.U64())
	for _, v := range c.held.fields() {
		*v = int(r.U32())
	}
}

func (d *date) fields() []*int {
	return []*int{&d.year, &d.month, &d.day, &d.hour, &d.minute, &d.second}
}

// Save writes the registers.
func (p *PM) Save(w *wire.Writer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w.Bool(p.pressed)
	w.Fixed(p.enable[:])
	w.U8(uint8(p.events))
	w.U8(uint8(p.wanted))
}

// Load reads them.
func (p *PM) Load(r *wire.Reader) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pressed = r.Bool()
	r.Fixed(p.enable[:])
	p.events, p.wanted = Event(r.U8()), Event(r.U8())
	p.update()
}

// Save writes where the guest is reading.
func (c *FWCfg) Save(w *wire.Writer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w.U16(c.key)
	w.U32(uint32(c.at))
}

// Load reads it.
func (c *FWCfg) Load(r *wire.Reader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.key = r.U16()
	c.at = int(min(r.U32(), uint32(len(c.items[c.key]))))
}

// Save writes the last value.
func (d *Debug) Save(w *wire.Writer) { w.U8(d.Last()) }

// Load reads it.
func (d *Debug) Load(r *wire.Reader) { d.Out(0, r.U8()) }

// Save writes the last value.
func (r *ResetRegister) Save(w *wire.Writer) { w.U8(uint8(r.last.Load())) }

// Load reads it.
func (r *ResetRegister) Load(from *wire.Reader) { r.last.Store(uint32(from.U8())) }
