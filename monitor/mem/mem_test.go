// SPDX-License-Identifier: Apache-2.0

package mem_test

import (
	"errors"
	"math"
	"testing"

	"vmctl/monitor/mem"
)

func open(t *testing.T, size uint64) *mem.Memory {
	t.Helper()
	m, err := mem.New(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func TestSmallMemoryIsOneRegion(t *testing.T) {
	m := open(t, 16<<20)
	r := m.Regions()
	if len(r) != 1 || r[0].Base != 0 || r[0].Len() != 16<<20 || r[0].HostAddr()%(2<<20) != 0 {
		t.Fatalf("regions %+v", r)
	}
}

func TestLargeMemoryGoesAroundTheGap(t *testing.T) {
	m := open(t, 5<<30)
	r := m.Regions()
	if len(r) != 2 || r[0].Len() != mem.GapStart || r[1].Base != mem.GapEnd || r[1].Len() != 2<<30 {
		t.Fatalf("regions of %d and %d bytes", r[0].Len(), r[1].Len())
	}
	if r[1].HostAddr()%(2<<20) != 0 {
		t.Errorf("high region at %#x is not aligned to huge pages", r[1].HostAddr())
	}
	if err := m.Write(6<<30-4, []byte("last")); err != nil {
		t.Errorf("last bytes: %v", err)
	}
}

func TestAddressesOutside(t *testing.T) {
	m := open(t, 5<<30)
	for _, c := range []struct{ addr, n uint64 }{
		{mem.GapStart, 1}, {mem.GapStart - 1, 2}, {mem.GapEnd - 1, 1}, {mem.GapEnd - 1, 2}, {6 << 30, 1}, {6<<30 - 1, 2},
		{math.MaxUint64, 1}, {math.MaxUint64, math.MaxUint64}, {0, math.MaxUint64}, {1, math.MaxUint64}, {mem.GapEnd, math.MaxUint64 - mem.GapEnd + 2},
	} {
		if b, err := m.At(c.addr, c.n); !errors.Is(err, mem.ErrRange) {
			t.Errorf("%#x+%#x: %d bytes, %v", c.addr, c.n, len(b), err)
		}
	}
}

func TestClear(t *testing.T) {
	m := open(t, 16<<20)
	if err := m.Write(4096, []byte{1}); err != nil {
		t.Fatal(err)
	}
	if err := m.Clear(); err != nil {
		t.Fatal(err)
	}
	if b, _ := m.At(4096, 1); b[0] != 0 {
		t.Error("memory keeps what was written before")
	}
}

func TestBadSizes(t *testing.T) {
	for _, size := range []uint64{0, 4095, 1 << 63, math.MaxUint64 - 4095} {
		if _, err := mem.New(size); !errors.Is(err, mem.ErrSize) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

func FuzzAt(f *testing.F) {
	m, err := mem.New(4 << 30)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { m.Close() })
	f.Add(uint64(0), uint64(1))
	f.Add(uint64(mem.GapStart-1), uint64(2))
	f.Fuzz(func(t *testing.T, addr, n uint64) {
		b, err := m.At(addr, n)
		in := n <= 1<<40 && (addr <= 3<<30 && addr+n <= 3<<30 || addr >= 4<<30 && addr <= 5<<30 && addr+n <= 5<<30)
		if in != (err == nil) || err == nil && uint64(len(b)) != n {
			t.Fatalf("%#x+%#x: %d bytes, %v", addr, n, len(b), err)
		}
	})
}

// A program runs on without its pages.
func TestReleaseProgram(t *testing.T) {
	for range 3 {
		if err := mem.ReleaseProgram(); err != nil {
			t.Fatal(err)
		}
	}
}
