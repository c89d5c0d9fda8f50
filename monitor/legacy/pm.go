// SPDX-License-Identifier: Apache-2.0

package legacy

import "sync"

// Where ACPI's first power management block is (ACPI 6.5, 4.8.3): its events, and
// behind them its control; and behind that the block of general-purpose events
// (4.8.4.1), a byte of status and one of enable. A hardware-reduced machine has the
// last alone.
const (
	PMBase       = 0x608
	PMEvents     = PMBase
	PMEventsLen  = 4 // status and enable, two bytes each
	PMControl    = PMBase + PMEventsLen
	PMControlLen = 2
	GPEStatus    = PMControl + PMControlLen
	GPELen       = 2
	PMRegisters  = PMEventsLen + PMControlLen + GPELen
)

// Event is a bit of the general-purpose events.
type Event uint8

// General-purpose events.
const (
	EventButton     Event = 1 << 0 // of a hardware-reduced machine
	EventGeneration Event = 1 << 1 // the machine was restored
	EventSlots      Event = 1 << 2 // see Slots
)

const (
	pmEnable  = 2 // where the two bytes of enable are
	pmSleep   = 5 // upper byte of control: as in the sleep control register
	gpeStatus = GPEStatus - PMBase
	gpeEnable = gpeStatus + 1
	pmButton  = 1 << 0
	pmEnabled = 1 << 0 // SCI_EN: the machine is always in ACPI mode
)

// PM is these blocks: the power button, power off, and what else the machine tells its
// guest. There is no timer and no lid.
type PM struct {
	Off  func()
	Line func(up bool) // drives the SCI, or the line of the generic event device: a level
	// Reduced is a hardware-reduced machine: the button is one of its general-purpose
	// events, all of which are enabled, as nothing but our own AML knows of them.
	Reduced bool

	mu      sync.Mutex // guards what follows, and the order of Line
	pressed bool
	enable  [2]uint8
	events  Event
	wanted  Event
}

// Press presses the power button.
func (p *PM) Press() {
	if p.Reduced {
		p.Raise(EventButton)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pressed = true
	p.update()
}

// Raise makes an event happen. One that the guest did not take yet happens once.
func (p *PM) Raise(e Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events |= e
	p.update()
}

// Reset takes the blocks back to power-on.
func (p *PM) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pressed, p.enable, p.events, p.wanted = false, [2]uint8{}, 0, 0
	p.update()
}

func (p *PM) update() {
	p.Line(p.pressed && p.enable[1]&pmButton != 0 || p.events&p.wanted != 0 || p.Reduced && p.events != 0)
}

// In reads a register.
func (p *PM) In(reg uint8) uint8 {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch reg {
	case 1:
		if p.pressed {
			return pmButton
		}
	case pmEnable, pmEnable + 1:
		return p.enable[reg-pmEnable]
	case PMEventsLen:
		return pmEnabled
	case gpeStatus:
		return uint8(p.events)
	case gpeEnable:
		return uint8(p.wanted)
	}
	return 0
}

// Out writes a register; a bit of status is cleared by writing it.
func (p *PM) Out(reg uint8, v uint8) {
	if reg == pmSleep {
		sleep := Sleep{Off: p.Off}
		sleep.Out(0, v)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch reg {
	case 1:
		p.pressed = p.pressed && v&pmButton == 0
	case pmEnable, pmEnable + 1:
		p.enable[reg-pmEnable] = v
	case gpeStatus:
		p.events &^= Event(v)
	case gpeEnable:
		p.wanted = Event(v)
	}
	p.update()
}
