// SPDX-License-Identifier: Apache-2.0

package pci

import (
	"errors"

	"vmctl/monitor/wire"
)

var errOtherBus = errors.New("other functions are on the bus")

// Save writes what the guest set. The processors are parked.
func (h *Host) Save(w *wire.Writer) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	w.U32(h.address.Load())
	for _, f := range h.devices {
		w.Bool(f != nil)
		if f == nil {
			continue
		}
		w.Fixed(f.space[:])
		if f.msix != nil {
			f.msix.save(w)
		}
	}
}

// Load is the other way. The interrupt chips are what they were: messages that wait
// are sent.
func (h *Host) Load(r *wire.Reader) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.address.Store(r.U32() & addressBits)
	for _, f := range h.devices {
		if r.Bool() != (f != nil) {
			r.Fail(errOtherBus)
		}
		if r.Err() != nil {
			return
		}
		if f == nil {
			continue
		}
		f.load(r)
		if f.msix != nil {
			f.msix.load(r)
		}
		if r.Err() == nil && f.owner != nil {
			f.owner.Moved()
		}
	}
}

// load takes the bits that the guest may change. The others say what the function is,
// and must be the same.
func (f *Function) load(r *wire.Reader) {
	var saved [configSize]byte
	r.Fixed(saved[:])
	for i, v := range saved {
		w := f.writable[i]
		if f.space[i]&^w != v&^w {
			r.Fail(errOtherBus)
		}
		f.space[i] = f.space[i]&^w | v&w
	}
}

func (m *MSIX) save(w *wire.Writer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w.U16(m.control)
	for i, e := range m.table {
		for _, word := range e {
			w.U32(word)
		}
		w.Bool(m.pending[i])
	}
}

func (m *MSIX) load(r *wire.Reader) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.control = r.U16()
	for i := range m.table {
		m.table[i] = [4]uint32{r.U32() &^ 3, r.U32(), r.U32(), r.U32() & msixMasked}
		m.pending[i] = r.Bool()
	}
	if r.Err() != nil {
		return
	}
	for i := range m.table {
		m.settle(i)
	}
}
