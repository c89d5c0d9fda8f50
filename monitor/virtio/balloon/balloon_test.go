// SPDX-License-Identifier: Apache-2.0

package balloon_test

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"vmctl/monitor/mem"
	"vmctl/monitor/virtio/balloon"
	"vmctl/monitor/virtio/virtiotest"
)

const size = 16 << 20

func pages(numbers ...uint32) (b []byte) {
	for _, n := range numbers {
		b = append(b, byte(n), byte(n>>8), byte(n>>16), byte(n>>24))
	}
	return b
}

// given is how many pages have lost their content, which only the host takes.
func given(t *testing.T, m *mem.Memory) (n int) {
	t.Helper()
	all, err := m.At(0, size)
	if err != nil {
		t.Fatal(err)
	}
	for page := range size / balloon.PageSize {
		if all[page*balloon.PageSize] == 0 {
			n++
		}
	}
	return n
}

func newMemory(t testing.TB) *mem.Memory {
	t.Helper()
	m, err := mem.New(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func TestInflate(t *testing.T) {
	m := newMemory(t)
	all, err := m.At(0, size)
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		all[i] = 1
	}
	d := balloon.New(m)
	drv := virtiotest.New(t, d, 0)
	if !d.SetTarget(8*balloon.PageSize) || d.SetTarget(8*balloon.PageSize+1) {
		t.Error("does not know what a change is")
	}
	drv.Changed()
	if got := drv.Config(0, 4); !bytes.Equal(got, pages(8)) {
		t.Errorf("target %v", got)
	}
	list := pages(10, 11, 12, 20, 19, 18, 5, 4095)
	drv.Do(0, virtiotest.Request{Read: [][]byte{list[:6], list[6:]}}) // a number across two buffers
	if target, actual := d.Sizes(); target != 8*balloon.PageSize || actual != 8*balloon.PageSize {
		t.Errorf("target %d, actual %d", target, actual)
	}
	if got := given(t, m); got != 8 {
		t.Errorf("the host got %d pages, want 8", got)
	}
	for _, page := range []int{9, 13, 17, 21, 4, 6, 4094} {
		if all[page*balloon.PageSize] != 1 {
			t.Errorf("page %d is gone, too", page)
		}
	}
	if all[11*balloon.PageSize] != 0 || all[4095*balloon.PageSize] != 0 {
		t.Error("a page in the balloon has its content")
	}
	drv.Do(1, virtiotest.Request{Read: [][]byte{pages(10, 11, 12)}})
	if _, actual := d.Sizes(); actual != 5*balloon.PageSize {
		t.Errorf("after a deflation %d", actual)
	}
	drv.Pause() // for a save that failed
	drv.Resume()
	if _, actual := d.Sizes(); actual != 5*balloon.PageSize {
		t.Errorf("after a pause %d", actual)
	}
	drv.Do(1, virtiotest.Request{Read: [][]byte{pages(1, 2, 3, 4, 5, 6, 7)}}) // more than it has
	if _, actual := d.Sizes(); actual != 0 {
		t.Errorf("after another %d", actual)
	}
	drv.Reset()
	drv.Start(0)
	if target, actual := d.Sizes(); target != 8*balloon.PageSize || actual != 0 {
		t.Errorf("after a reset: target %d, actual %d", target, actual)
	}
}

// TestBad: what a driver must not do breaks the device.
func TestBad(t *testing.T) {
	for name, c := range map[string]struct {
		queue int
		req   virtiotest.Request
	}{
		"beyond memory":             {0, virtiotest.Request{Read: [][]byte{pages(4096)}}},
		"far beyond memory":         {0, virtiotest.Request{Read: [][]byte{pages(1, 0xffffffff)}}},
		"half a number":             {0, virtiotest.Request{Read: [][]byte{{1, 0}}}},
		"numbers to write":          {0, virtiotest.Request{Write: []int{4}}},
		"deflation to write":        {1, virtiotest.Request{Write: []int{4}}},
		"half a statistic":          {2, virtiotest.Request{Read: [][]byte{make([]byte, 15)}}},
		"statistics to write":       {2, virtiotest.Request{Write: []int{10}}},
		"too many statistics":       {2, virtiotest.Request{Read: [][]byte{make([]byte, 40<<10), make([]byte, 20<<10)}}},
		"report of what is to read": {3, virtiotest.Request{Read: [][]byte{make([]byte, 4096)}}},
	} {
		t.Run(name, func(t *testing.T) {
			drv := virtiotest.New(t, balloon.New(newMemory(t)), 0)
			if drv.Do(c.queue, c.req); len(drv.Broken()) != 1 {
				t.Errorf("broken: %v", drv.Broken())
			}
		})
	}
}

// stat is one statistic.
func stat(tag byte, v uint64) []byte {
	return append([]byte{tag, 0}, binary.LittleEndian.AppendUint64(nil, v)...)
}

// TestStats: the driver's buffer comes back when somebody asks, and not before.
func TestStats(t *testing.T) {
	d := balloon.New(newMemory(t))
	drv := virtiotest.New(t, d, 0)
	if s := d.Stats(); s != (balloon.Stats{}) {
		t.Errorf("before the driver told anything: %+v", s)
	}
	for i := range uint64(3) {
		text := bytes.Join([][]byte{stat(5, 1<<30), stat(4, 1000+i), stat(0xff, 7), stat(6, 2000), stat(7, 3000), stat(2, 4)}, nil)
		drv.Begin(2, virtiotest.Request{Read: [][]byte{text[:13], text[13:]}})
		want := balloon.Stats{Total: 1 << 30, Free: 1000 + i, Available: 2000, Caches: 3000, MajorFaults: 4}
		for deadline := time.Now().Add(20 * time.Second); d.Stats() != want; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("got %+v, want %+v", d.Stats(), want)
			}
		}
		drv.Do(2) // waits for what is under way
	}
	// A driver that has two buffers gets the first back.
	drv.Begin(2, virtiotest.Request{Read: [][]byte{stat(4, 1)}}, virtiotest.Request{Read: [][]byte{stat(4, 2)}})
	for deadline := time.Now().Add(20 * time.Second); d.Stats().Free != 2; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("got %+v", d.Stats())
		}
	}
	drv.Do(2)
	drv.Reset()
	drv.Start(0)
	if s := d.Stats(); s != (balloon.Stats{}) {
		t.Errorf("after a reset: %+v", s)
	}
}
