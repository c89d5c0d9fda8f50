// SPDX-License-Identifier: Apache-2.0

package bus_test

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"vmctl/monitor/bus"
)

// ram is registers that keep what is written.
type ram [8]uint8

func (r *ram) In(reg uint8) uint8     { return r[reg] }
func (r *ram) Out(reg uint8, v uint8) { r[reg] = v }

func space(t *testing.T) (*bus.Space, *ram) {
	t.Helper()
	s, r := new(bus.Space), new(ram)
	if err := s.AddRegisters(0x3f8, 8, r); err != nil {
		t.Fatal(err)
	}
	return s, r
}

func TestWideAccessIsOneToEachRegister(t *testing.T) {
	s, r := space(t)
	s.Write(0x3f9, []byte{1, 2, 3})
	if *r != (ram{0, 1, 2, 3}) {
		t.Errorf("registers are %v", *r)
	}
	got := make([]byte, 4)
	s.Read(0x3f8, got)
	if !bytes.Equal(got, []byte{0, 1, 2, 3}) {
		t.Errorf("read %v", got)
	}
}

func TestAccessBeyondTheLastRegister(t *testing.T) {
	s, r := space(t)
	s.Write(0x3ff, []byte{9, 8, 7, 6})
	if r[7] != 9 {
		t.Errorf("last register is %d", r[7])
	}
	got := make([]byte, 4)
	s.Read(0x3ff, got)
	if !bytes.Equal(got, []byte{9, 0xff, 0xff, 0xff}) {
		t.Errorf("read %v", got)
	}
}

func TestNobodyAnswers(t *testing.T) {
	s, _ := space(t)
	for _, addr := range []uint64{0, 0x3f7, 0x400, math.MaxUint64} {
		got := make([]byte, 8)
		s.Read(addr, got)
		if !bytes.Equal(got, bytes.Repeat([]byte{0xff}, 8)) {
			t.Errorf("%#x reads as %v", addr, got)
		}
		s.Write(addr, got)
	}
}

func TestOverlap(t *testing.T) {
	s, r := space(t)
	for _, c := range []struct {
		base uint64
		n    int
	}{{0x3f8, 1}, {0x3ff, 1}, {0x3f0, 9}, {0x3f0, 32}, {0, 0}, {math.MaxUint64, 8}, {0, 257}} {
		if err := s.AddRegisters(c.base, c.n, r); !errors.Is(err, bus.ErrOverlap) {
			t.Errorf("%#x+%d: %v", c.base, c.n, err)
		}
	}
	if err := s.AddRegisters(0x400, 8, r); err != nil {
		t.Errorf("neighbour: %v", err)
	}
}

func FuzzAccess(f *testing.F) {
	f.Add(uint64(0x3f8), []byte{1, 2})
	f.Fuzz(func(t *testing.T, addr uint64, data []byte) {
		s, _ := space(t)
		s.Write(addr, data)
		s.Read(addr, data)
	})
}
