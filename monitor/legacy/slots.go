// SPDX-License-Identifier: Apache-2.0

package legacy

import (
	"sync"

	"vmctl/monitor/wire"
)

// Where our own AML finds which slots of the bus have changed: three registers of a bit
// for each slot, 32 bits wide. What stands in the first two is cleared by writing it.
const (
	SlotsBase    = 0x610
	SlotsCame    = SlotsBase     // a device was plugged in
	SlotsLeave   = SlotsBase + 4 // the system is to let go of the device
	SlotsEject   = SlotsBase + 8 // written: it has let go
	SlotsEvents  = 8             // bytes of the first two
	SlotRegister = 4             // bytes of one
	SlotsSize    = 12
)

// Slots are these registers.
type Slots struct {
	// Eject is called when the system has let go of what is in slots.
	Eject func(slots uint32)

	mu     sync.Mutex // guards events
	events [SlotsEvents]uint8
}

// Came tells the guest that there is a device in a slot.
func (s *Slots) Came(slot int) { s.set(SlotsCame, slot) }

// Leave asks the guest to let go of a device.
func (s *Slots) Leave(slot int) { s.set(SlotsLeave, slot) }

func (s *Slots) set(register, slot int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events[register-SlotsBase+slot/8] |= 1 << (slot % 8)
}

// Reset takes the registers back to power-on.
func (s *Slots) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = [SlotsEvents]uint8{}
}

// Save writes what the guest has not looked at, and Load is the other way.
func (s *Slots) Save(w *wire.Writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Fixed(s.events[:])
}

// Load reads what Save wrote.
func (s *Slots) Load(r *wire.Reader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Fixed(s.events[:])
}

// In reads a register.
func (s *Slots) In(reg uint8) uint8 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if reg < SlotsEvents {
		return s.events[reg]
	}
	return 0
}

// Out writes a register.
func (s *Slots) Out(reg uint8, v uint8) {
	if reg >= SlotsEvents {
		s.Eject(uint32(v) << (8 * (reg - SlotsEvents)))
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events[reg] &^= v
}
