// SPDX-License-Identifier: Apache-2.0

package mem_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"vmctl/monitor/mem"
)

func TestShared(t *testing.T) {
	ram := make([]byte, 64)
	m := mem.Over(ram)
	s, err := m.Share(2, 20, 2)
	if err != nil {
		t.Fatal(err)
	}
	s.Store16(0, 0x1234)
	s.Store16(4, 0x5678)
	s.Store32(2, 0xdeadbeef)
	s.Store16(18, 0xffff)
	s.Store16(18, 0x00f0)
	s.Put64(8, 0x0102030405060708)
	want := []byte{0, 0, 0x34, 0x12, 0xef, 0xbe, 0xad, 0xde, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0xf0, 0}
	if !bytes.Equal(ram[:len(want)], want) {
		t.Errorf("memory is %x, want %x", ram[:len(want)], want)
	}
	for off, v := range map[int]uint16{0: 0x1234, 2: 0xbeef, 4: 0xdead, 18: 0x00f0} {
		if got := s.Load16(off); got != v {
			t.Errorf("half word %d is %#x, want %#x", off, got, v)
		}
	}
}

func TestShareRefuses(t *testing.T) {
	m := mem.Over(make([]byte, 64))
	for _, c := range []struct {
		addr, n, align uint64
		want           error
	}{
		{1, 2, 2, mem.ErrAlign}, {2, 4, 4, mem.ErrAlign}, {8, 8, 16, mem.ErrAlign},
		{0, 65, 2, mem.ErrRange}, {62, 4, 2, mem.ErrRange}, {^uint64(1), 4, 2, mem.ErrRange},
	} {
		if _, err := m.Share(c.addr, c.n, c.align); !errors.Is(err, c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// Two who write neighbours leave each other's half word alone.
func TestNeighboursStay(t *testing.T) {
	s, err := mem.Over(make([]byte, 8)).Share(0, 4, 4)
	if err != nil {
		t.Fatal(err)
	}
	var both sync.WaitGroup
	for off := 0; off < 4; off += 2 {
		both.Go(func() {
			r := rand.New(rand.NewPCG(uint64(off), 0))
			for range 20000 {
				v := uint16(r.Uint32())
				s.Store16(off, v)
				if got := s.Load16(off); got != v {
					t.Errorf("half word %d is %#x, want %#x", off, got, v)
					return
				}
			}
		})
	}
	both.Wait()
}
