// SPDX-License-Identifier: Apache-2.0

package legacy

import "sync"

// Where ACPI's first power management block is, of machines that are no
// hardware-reduced ones (ACPI 6.5, 4.8.3): its events, and behind them its control.
const (
	PMBase      = 0x608
	PMEvents    = PMBase
	PMEventsLen = 4 // status and enable, two bytes each
	PMControl   = PMBase + PMEventsLen
	PMRegisters = PMEventsLen + 2
)

const (
	pmEnable  = 2 // where the two bytes of enable are
	pmSleep   = 5 // upper byte of control: as in the sleep control register
	pmButton  = 1 << 0
	pmEnabled = 1 << 0 // SCI_EN: the machine is always in ACPI mode
)

// PM is that block: the power button, and power off. It has no timer and no lid.
type PM struct {
	Off  func()
	Line func(up bool) // drives the SCI, a level

	mu      sync.Mutex // guards what follows, and the order of Line
	pressed bool
	enable  [2]uint8
}

// Press presses the power button.
func (p *PM) Press() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.set(true)
}

// Reset takes the block back to power-on.
func (p *PM) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.enable = [2]uint8{}
	p.set(false)
}

func (p *PM) set(pressed bool) {
	p.pressed = pressed
	p.Line(pressed && p.enable[1]&pmButton != 0)
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
	}
	return 0
}

// Out writes a register; a bit of status is cleared by writing it.
func (p *PM) Out(reg uint8, v uint8) {
	switch reg {
	case 1, pmEnable, pmEnable + 1:
		p.mu.Lock()
		defer p.mu.Unlock()
		if reg == 1 {
			p.set(p.pressed && v&pmButton == 0)
			return
		}
		p.enable[reg-pmEnable] = v
		p.set(p.pressed)
	case pmSleep:
		sleep := Sleep{Off: p.Off}
		sleep.Out(0, v)
	}
}
