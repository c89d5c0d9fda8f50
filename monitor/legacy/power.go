// SPDX-License-Identifier: Apache-2.0

package legacy

import "sync/atomic"

// Where the registers that end or restart the guest are.
const (
	I8042Base      = 0x60
	I8042Registers = 5

	ResetPort  = 0xcf9
	ResetValue = 0x06 // what the ACPI tables tell the guest to write

	SleepBase      = 0x600
	SleepRegisters = 2
	SleepControl   = 0x600
	SleepStatus    = 0x601
	SleepTypeOff   = 5 // of \_S5

	PanicPort      = 0x505
	PanicRegisters = 1

	DebugPort      = 0x80
	DebugRegisters = 1
)

// I8042 is what is left of the keyboard controller: the line that resets the
// machine. There is no keyboard, and the ACPI tables say so.
type I8042 struct {
	Reset func()
}

const (
	i8042Command  = 4
	i8042Pulse    = 0xf0 // pulse the lines whose bit is 0
	i8042PulseBit = 1 << 0
)

// In reads the status, in which nothing is ever pending, or no data.
func (*I8042) In(reg uint8) uint8 {
	if reg == 0 || reg == i8042Command {
		return 0
	}
	return 0xff
}

// Out takes a command.
func (k *I8042) Out(reg uint8, v uint8) {
	if reg == i8042Command && v&i8042Pulse == i8042Pulse && v&i8042PulseBit == 0 {
		k.Reset()
	}
}

// ResetRegister is the PC's reset port. It lies inside the address register of
// PCI's configuration space, and answers to accesses of one byte alone.
type ResetRegister struct {
	Reset func()
	last  atomic.Uint32
}

// Read returns what was written last.
func (r *ResetRegister) Read(_ uint64, data []byte) {
	if len(data) == 1 {
		data[0] = uint8(r.last.Load())
	}
}

// Write resets when bit 2 goes up.
func (r *ResetRegister) Write(_ uint64, data []byte) {
	const cpu = 1 << 2
	if len(data) != 1 {
		return
	}
	r.last.Store(uint32(data[0] &^ cpu))
	if data[0]&cpu != 0 {
		r.Reset()
	}
}

// Sleep is ACPI's sleep control and status, as machines without the older power
// management block have it.
type Sleep struct {
	Off func()
}

const (
	sleepEnable    = 1 << 5
	sleepTypeShift = 2
	sleepTypeMask  = 7
)

// In reads 0: no wake-up is pending.
func (*Sleep) In(uint8) uint8 { return 0 }

// Out powers off when the guest goes to \_S5.
func (s *Sleep) Out(reg uint8, v uint8) {
	if reg == 0 && v&sleepEnable != 0 && v>>sleepTypeShift&sleepTypeMask == SleepTypeOff {
		s.Off()
	}
}

// Panic is the pvpanic device: the guest says that its kernel panicked. A guest
// that goes on in a crash kernel says so too, and is left alone.
type Panic struct {
	Panicked func()
}

const (
	panicPanicked = 1 << 0
	panicCrash    = 1 << 1
)

// In reads which events are known.
func (*Panic) In(uint8) uint8 { return panicPanicked | panicCrash }

// Out takes an event.
func (p *Panic) Out(_ uint8, v uint8) {
	if v&panicPanicked != 0 {
		p.Panicked()
	}
}

// Debug keeps the last byte that was written to the PC's diagnostics port, for
// the report of how the machine ended.
type Debug struct{ last atomic.Uint32 }

// In reads what was written last.
func (d *Debug) In(uint8) uint8 { return d.Last() }

// Out keeps a byte.
func (d *Debug) Out(_ uint8, v uint8) { d.last.Store(uint32(v)) }

// Last returns what was written last.
func (d *Debug) Last() uint8 { return uint8(d.last.Load()) }
