// SPDX-License-Identifier: Apache-2.0

package legacy_test

import (
	"testing"

	"vmctl/monitor/bus"
	"vmctl/monitor/legacy"
)

// machine counts what the guest asked for.
type machine struct {
	ports              bus.Space
	resets, offs, dead int
	debug              legacy.Debug
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := new(machine)
	reset := func() { m.resets++ }
	for _, err := range []error{
		m.ports.AddRegisters(legacy.I8042Base, legacy.I8042Registers, &legacy.I8042{Reset: reset}),
		m.ports.Add(legacy.ResetPort, 1, &legacy.ResetRegister{Reset: reset}),
		m.ports.AddRegisters(legacy.SleepBase, legacy.SleepRegisters, &legacy.Sleep{Off: func() { m.offs++ }}),
		m.ports.AddRegisters(legacy.PanicPort, legacy.PanicRegisters, &legacy.Panic{Panicked: func() { m.dead++ }}),
		m.ports.AddRegisters(legacy.DebugPort, legacy.DebugRegisters, &m.debug),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func TestWhatEndsTheMachine(t *testing.T) {
	for _, c := range []struct {
		name               string
		port               uint64
		data               []byte
		resets, offs, dead int
	}{
		{"keyboard reset", 0x64, []byte{0xfe}, 1, 0, 0},
		{"keyboard pulses nothing", 0x64, []byte{0xff}, 0, 0, 0},
		{"keyboard data", 0x60, []byte{0xfe}, 0, 0, 0},
		{"ACPI reset", 0xcf9, []byte{6}, 1, 0, 0},
		{"reset register, first step", 0xcf9, []byte{2}, 0, 0, 0},
		{"PCI address", 0xcf8, []byte{0, 6, 0, 0x80}, 0, 0, 0},
		{"reset register, two bytes", 0xcf9, []byte{6, 0}, 0, 0, 0},
		{"power off", 0x600, []byte{5<<2 | 1<<5}, 0, 1, 0},
		{"sleep type without enable", 0x600, []byte{5 << 2}, 0, 0, 0},
		{"other sleep type", 0x600, []byte{3<<2 | 1<<5}, 0, 0, 0},
		{"wake status", 0x601, []byte{0xff}, 0, 0, 0},
		{"panic", 0x505, []byte{1}, 0, 0, 1},
		{"crash kernel", 0x505, []byte{2}, 0, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t)
			m.ports.Write(c.port, c.data)
			if m.resets != c.resets || m.offs != c.offs || m.dead != c.dead {
				t.Errorf("%d resets, %d power-offs, %d panics", m.resets, m.offs, m.dead)
			}
		})
	}
}

func TestWhatTheyRead(t *testing.T) {
	m := newMachine(t)
	m.ports.Write(0xcf9, []byte{2})
	m.ports.Write(0x80, []byte{0x42})
	for port, want := range map[uint64]byte{0x60: 0, 0x61: 0xff, 0x64: 0, 0xcf9: 2, 0x600: 0, 0x601: 0, 0x505: 3, 0x80: 0x42} {
		got := []byte{0}
		m.ports.Read(port, got)
		if got[0] != want {
			t.Errorf("port %#x reads %#x, want %#x", port, got[0], want)
		}
	}
	if m.debug.Last() != 0x42 {
		t.Errorf("debug byte is %#x", m.debug.Last())
	}
	wide := make([]byte, 4)
	m.ports.Read(0xcf9, wide)
	if wide[0] != 0xff {
		t.Errorf("wide read of the reset port gives %v", wide)
	}
}

func FuzzPorts(f *testing.F) {
	f.Add(uint16(0x64), []byte{0xfe})
	f.Fuzz(func(t *testing.T, port uint16, data []byte) {
		m := newMachine(t)
		m.ports.Write(uint64(port), data)
		m.ports.Read(uint64(port), data)
	})
}
