// SPDX-License-Identifier: Apache-2.0

package legacy_test

import (
	"testing"

	"vmctl/monitor/bus"
	"vmctl/monitor/legacy"
)

// pm is a power management block behind its ports.
type pm struct {
	*legacy.PM
	ports bus.Space
	up    bool
	offs  int
}

func newPM(t *testing.T) *pm {
	t.Helper()
	p := &pm{}
	p.PM = &legacy.PM{Off: func() { p.offs++ }, Line: func(up bool) { p.up = up }}
	if err := p.ports.AddRegisters(legacy.PMBase, legacy.PMRegisters, p); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *pm) read(port uint64) uint16 {
	b := make([]byte, 2)
	p.ports.Read(port, b)
	return uint16(b[0]) | uint16(b[1])<<8
}

func (p *pm) write(port uint64, v uint16) { p.ports.Write(port, []byte{byte(v), byte(v >> 8)}) }

func TestPowerButtonOfAPC(t *testing.T) {
	const button, status, enable = 1 << 8, legacy.PMEvents, legacy.PMEvents + 2
	p := newPM(t)
	p.Press()
	if p.up || p.read(status) != button {
		t.Errorf("pressed before it is enabled: line %v, status %#x", p.up, p.read(status))
	}
	p.write(enable, button)
	if !p.up || p.read(enable) != button {
		t.Error("no interrupt of a button that is enabled and pressed")
	}
	p.write(status, button^0xffff)
	if !p.up || p.read(status) != button {
		t.Error("cleared by other bits")
	}
	p.write(status, button)
	if p.up || p.read(status) != 0 {
		t.Error("not cleared")
	}
	p.Press()
	if !p.up {
		t.Error("no interrupt of a second press")
	}
	p.Reset()
	if p.up || p.read(status) != 0 || p.read(enable) != 0 {
		t.Error("a reset leaves something")
	}
}

func TestSleepOfAPC(t *testing.T) {
	p := newPM(t)
	if v := p.read(legacy.PMControl); v != 1 {
		t.Errorf("control is %#x, not that of a machine in ACPI mode", v)
	}
	for _, v := range []uint16{0, 5 << 10, 1<<13 | 3<<10, 1 | 5<<2 | 1<<5} {
		if p.write(legacy.PMControl, v); p.offs != 0 {
			t.Fatalf("%#x powers off", v)
		}
	}
	if p.write(legacy.PMControl, 1<<13|5<<10); p.offs != 1 {
		t.Error("does not power off")
	}
}

// What happens to a machine is in its general-purpose events until the guest took it.
func TestEvents(t *testing.T) {
	for _, reduced := range []bool{false, true} {
		p := newPM(t)
		p.Reduced = reduced
		p.Raise(legacy.EventGeneration)
		if p.up != reduced {
			t.Errorf("reduced %v: line %v before it is enabled", reduced, p.up)
		}
		const enabled = 0xff00
		p.write(legacy.GPEStatus, enabled)
		if !p.up || p.read(legacy.GPEStatus) != enabled|uint16(legacy.EventGeneration) {
			t.Errorf("reduced %v: line %v, registers %#x", reduced, p.up, p.read(legacy.GPEStatus))
		}
		p.write(legacy.GPEStatus, enabled|uint16(legacy.EventGeneration))
		if p.up || p.read(legacy.GPEStatus) != enabled {
			t.Errorf("reduced %v: not cleared", reduced)
		}
		p.Raise(legacy.EventGeneration)
		if p.Reset(); p.up || p.read(legacy.GPEStatus) != 0 {
			t.Errorf("reduced %v: a reset leaves something", reduced)
		}
	}
}

// The button of a reduced machine is one of them.
func TestPowerButtonOfAReducedMachine(t *testing.T) {
	p := newPM(t)
	p.Reduced = true
	if p.Press(); !p.up || p.read(legacy.GPEStatus) != uint16(legacy.EventButton) {
		t.Errorf("line %v, registers %#x", p.up, p.read(legacy.GPEStatus))
	}
}

// The line is up when something happened and is enabled, whatever was done before.
func FuzzPM(f *testing.F) {
	f.Add([]byte{0x3, 1, 0xff, 0, 0x1, 1})
	f.Fuzz(func(t *testing.T, stream []byte) {
		p := newPM(t)
		for p.Reduced = len(stream)%2 == 1; len(stream) > 1; stream = stream[2:] {
			switch {
			case stream[0] >= 0xc0:
				p.Raise(legacy.Event(stream[1]))
			case stream[0] >= 0x80:
				p.Press()
			default:
				p.ports.Write(legacy.PMBase+uint64(stream[0]%16), []byte{stream[1]})
			}
			status, enable := p.read(legacy.PMEvents), p.read(legacy.PMEvents+2)
			events, wanted := p.read(legacy.GPEStatus)&0xff, p.read(legacy.GPEStatus)>>8
			if p.Reduced {
				wanted = 0xff
			}
			if want := status&enable&(1<<8) != 0 || events&wanted != 0; p.up != want {
				t.Fatalf("line %v with status %#x, enable %#x, events %#x of %#x", p.up, status, enable, events, wanted)
			}
		}
	})
}
