// SPDX-License-Identifier: Apache-2.0

package legacy_test

import (
	"encoding/binary"
	"slices"
	"testing"

	"vmctl/monitor/bus"
	"vmctl/monitor/legacy"
)

// TestSlots does what our own AML does.
func TestSlots(t *testing.T) {
	var ports bus.Space
	var ejected []uint32
	s := &legacy.Slots{Eject: func(slots uint32) {
		if slots != 0 {
			ejected = append(ejected, slots)
		}
	}}
	if err := ports.AddRegisters(legacy.SlotsBase, legacy.SlotsSize, s); err != nil {
		t.Fatal(err)
	}
	read := func(port uint64) uint32 {
		var b [4]byte
		ports.Read(port, b[:])
		return binary.LittleEndian.Uint32(b[:])
	}
	write := func(port uint64, v uint32) { ports.Write(port, binary.LittleEndian.AppendUint32(nil, v)) }
	is := func(what string, came, leave uint32) {
		t.Helper()
		if c, l := read(legacy.SlotsCame), read(legacy.SlotsLeave); c != came || l != leave {
			t.Errorf("%s: came %#x, leave %#x, want %#x and %#x", what, c, l, came, leave)
		}
	}
	is("at power-on", 0, 0)
	s.Came(1)
	s.Came(31)
	s.Leave(9)
	is("told", 1<<1|1<<31, 1<<9)
	write(legacy.SlotsCame, 1<<31|1<<5)
	is("one was taken", 1<<1, 1<<9)
	write(legacy.SlotsLeave, 1<<9)
	is("the other, too", 1<<1, 0)
	write(legacy.SlotsEject, 1<<9)
	write(legacy.SlotsEject, 1<<31)
	if want := []uint32{1 << 9, 1 << 31}; !slices.Equal(ejected, want) {
		t.Errorf("ejected %#x, want %#x", ejected, want)
	}
	if got := read(legacy.SlotsEject); got != 0 {
		t.Errorf("the register of ejects reads %#x", got)
	}
	s.Leave(3)
	s.Reset()
	is("after a reset", 0, 0)
}
