// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// chain is a disk that is switched to new overlays, which are merged, on media that lose
// power together.
type chain struct {
	t      *testing.T
	r      *rand.Rand
	base   fixed     // read-only, below all; nil: the lowest medium is raw
	media  []*medium // from the lowest on
	disk   Lower     // what is used
	merge  *Merge    // of the uppermost, or nil
	next   uint64    // cluster to copy
	copied bool      // the merge may be finished
	may    [][]uint64
	cuts   int
	failed error
}

func newChain(t *testing.T, seed uint64) *chain {
	t.Helper()
	c := &chain{t: t, r: rand.New(rand.NewPCG(seed, 7))}
	sectors := uint64(2*128 + c.r.IntN(300)) // of 64 KiB clusters: a few
	var content []byte
	for i := range sectors {
		c.may = append(c.may, []uint64{1<<32 | i})
		content = append(content, stamp(c.may[i][0])...)
	}
	m := &medium{before: c.cut}
	if c.media = []*medium{m}; seed%2 == 0 {
		m.now, m.durable = content, bytes.Clone(content)
	} else {
		c.base = content
	}
	if err := c.open(); err != nil {
		t.Fatal(err)
	}
	return c
}

// stack opens media above each other.
func stack(base fixed, media []*medium) (Lower, error) {
	var low Base = base
	if base == nil {
		raw, err := openRaw(media[0])
		if err != nil {
			return nil, err
		}
		low, media = raw, media[1:]
	}
	for _, m := range media {
		d, err := open(m, low)
		if err != nil {
			return nil, err
		}
		low = d
	}
	return low.(Lower), nil
}

func (c *chain) open() (err error) {
	c.disk, err = stack(c.base, c.media)
	return err
}

// cut looks at what the media would have after a power cut now: in each chain that may be
// recorded.
func (c *chain) cut() {
	if c.cuts++; c.failed != nil || c.disk == nil || c.cuts%3 > 0 { // they are large
		return
	}
	chains := []int{len(c.media)}
	if c.copied {
		chains = append(chains, len(c.media)-1)
	}
	for _, n := range chains {
		var left []*medium
		for _, m := range c.media[:n] {
			left = append(left, m.cut(c.r))
		}
		d, err := stack(c.base, left)
		if err == nil {
			err = holds(d, c.may)
		}
		if err != nil {
			c.failed = fmt.Errorf("%d of %d files: %w", n, len(c.media), err)
			return
		}
	}
}

// holds compares a disk with what it may have.
func holds(d Lower, may [][]uint64) error {
	b := make([]byte, d.Size())
	if err := d.ReadVec([][]byte{b}, 0); err != nil {
		return err
	}
	for i := range may {
		s := b[i*sector:][:sector]
		if v := order.Uint64(s); !slices.Contains(may[i], v) || !bytes.Equal(s, stamp(v)) {
			return fmt.Errorf("sector %d has %#x, and may have %#x", i, v, may[i])
		}
	}
	return nil
}

func (c *chain) sure() {
	for i := range c.may {
		c.may[i] = c.may[i][len(c.may[i])-1:]
	}
}

func (c *chain) flush() error {
	err := c.disk.Flush()
	c.sure()
	return err
}

func (c *chain) change(v *uint64) error {
	first := c.r.IntN(len(c.may))
	n := min(1+c.r.IntN(1<<c.r.IntN(9)), len(c.may)-first)
	zero := c.r.IntN(4) == 0
	var data []byte
	for i := range n {
		if zero {
			c.may[first+i] = append(c.may[first+i], 0)
			continue
		}
		*v++
		c.may[first+i] = append(c.may[first+i], *v)
		data = append(data, stamp(*v)...)
	}
	if zero {
		return c.disk.Zero(uint64(first)*sector, uint64(n)*sector)
	}
	at := c.r.IntN(len(data))
	return c.disk.WriteVec([][]byte{data[:at], data[at:]}, uint64(first)*sector)
}

// push makes a new overlay, as a switch does.
func (c *chain) push() error {
	if c.merge != nil || len(c.media) > 4 {
		return nil
	}
	if err := c.flush(); err != nil {
		return err
	}
	m := &medium{before: c.cut}
	c.media = append(c.media, m) // it is recorded before it is in use
	d, err := fresh(m, c.disk)
	if err == nil {
		c.disk = d
	}
	return err
}

func (c *chain) begin() (err error) {
	if d, ok := c.disk.(*Disk); ok && len(c.media) > 1 {
		if c.merge, err = NewMerge(d); err == nil {
			c.disk, c.next = c.merge, 0
		}
	}
	return err
}

// step does some of a merge, or ends it.
func (c *chain) step() error {
	m := c.merge
	switch {
	case c.copied:
		low, err := m.Finish()
		c.disk, c.merge, c.copied, c.media = low, nil, false, c.media[:len(c.media)-1]
		return err
	case c.r.IntN(30) == 0:
		d, err := m.Leave()
		c.disk, c.merge = d, nil
		return err
	case c.next == m.top.clusters:
		err := m.Flush()
		c.sure()
		c.copied = true
		return err
	}
	for ; c.next < m.top.clusters; c.next++ {
		if m.top.has(c.next) {
			err := m.copy(c.next, make([]byte, m.top.cluster()))
			c.next++
			return err
		}
	}
	return nil
}

// crash is a power cut that happens, after which any chain is opened that may be
// recorded.
func (c *chain) crash() error {
	if c.copied && c.r.IntN(2) == 0 {
		c.media = c.media[:len(c.media)-1]
	}
	for i, m := range c.media {
		c.media[i] = m.cut(c.r)
		c.media[i].before = c.cut
	}
	c.disk, c.merge, c.copied = nil, nil, false
	if err := c.open(); err != nil {
		return err
	}
	// What it has now is what it had.
	b := make([]byte, c.disk.Size())
	if err := c.disk.ReadVec([][]byte{b}, 0); err != nil {
		return err
	}
	for i := range c.may {
		v := order.Uint64(b[i*sector:])
		if !slices.Contains(c.may[i], v) {
			return fmt.Errorf("after a crash sector %d has %#x, and may have %#x", i, v, c.may[i])
		}
		c.may[i] = []uint64{v}
	}
	return c.flush()
}

// Through switches, merges, merges that are left or cut short, and power cuts at any
// write, no sector has what it may not have.
func TestMergeOfAny(t *testing.T) {
	cuts, finished := 0, 0
	for seed := range uint64(30) {
		c := newChain(t, seed)
		v := uint64(2)
		for i := range 150 {
			before := len(c.media)
			var err error
			switch what := c.r.IntN(20); {
			case what < 8:
				err = c.change(&v)
			case what < 10:
				err = c.flush()
			case what == 10:
				err = c.push()
			case what == 11 && i%5 == 0:
				err = c.crash()
			case c.merge == nil && what < 15:
				err = c.begin()
			case c.merge != nil:
				if err = c.step(); len(c.media) < before {
					finished++
				}
			}
			now := make([][]uint64, len(c.may))
			for i, m := range c.may {
				now[i] = m[len(m)-1:]
			}
			if err = errors.Join(err, c.failed); err == nil {
				err = holds(c.disk, now)
			}
			if err != nil {
				t.Fatalf("seed %d, operation %d, %d. cut: %v", seed, i, c.cuts, err)
			}
		}
		cuts += c.cuts
	}
	if finished < 10 {
		t.Errorf("only %d merges were finished", finished)
	}
	t.Logf("%d power cuts, %d merges finished", cuts, finished)
}

// Many at once write to a disk of real files that is being merged.
func TestMergeRace(t *testing.T) {
	const sectors, workers = 8192, 4
	dir := t.TempDir()
	path := func(n int) string { return filepath.Join(dir, fmt.Sprint(n)) }
	want := bytes.Repeat([]byte("the base; "), sectors*sector/10+1)[:sectors*sector]
	if err := os.WriteFile(path(0), want, 0o600); err != nil {
		t.Fatal(err)
	}
	file := func(n int) *os.File {
		t.Helper()
		f, err := os.OpenFile(path(n), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	low, err := OpenRaw(file(0))
	if err != nil {
		t.Fatal(err)
	}
	mid, err := New(file(1), low)
	if err != nil {
		t.Fatal(err)
	}
	top, err := New(file(2), mid)
	if err != nil {
		t.Fatal(err)
	}
	many := func(d Lower, rounds int) {
		var all sync.WaitGroup
		for w := range workers {
			all.Go(func() {
				r := rand.New(rand.NewPCG(uint64(w), uint64(rounds)))
				for range rounds {
					first := (r.IntN(sectors/5/workers)*workers + w) * 5
					part := want[first*sector:][:(1+r.IntN(5))*sector]
					var err error
					if r.IntN(5) == 0 {
						clear(part)
						err = d.Zero(uint64(first*sector), uint64(len(part)))
					} else {
						copy(part, fmt.Appendf(nil, "%d %d", w, r.Uint64()))
						err = d.WriteVec([][]byte{bytes.Clone(part)}, uint64(first*sector))
					}
					got := make([]byte, len(part))
					if err = errors.Join(err, d.ReadVec([][]byte{got}, uint64(first*sector))); err != nil || !bytes.Equal(got, part) {
						t.Errorf("sectors from %d on differ: %v", first, err)
					}
				}
			})
		}
		all.Wait()
	}
	many(top, 500)
	for d := top; d != nil; {
		m, err := NewMerge(d)
		if err != nil {
			t.Fatal(err)
		}
		ran := make(chan error)
		go func() { ran <- m.Run() }()
		many(m, 500)
		if err := <-ran; err != nil {
			t.Fatal(err)
		}
		if done, total := m.Progress(); done != total || done == 0 {
			t.Errorf("%d of %d bytes", done, total)
		}
		many(m, 100)
		low, err := m.Finish()
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		if err := low.ReadVec([][]byte{got}, 0); err != nil || !bytes.Equal(got, want) {
			t.Errorf("after the merge it differs: %v", err)
		}
		d, _ = low.(*Disk)
	}
	if got, err := os.ReadFile(path(0)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the file differs: %v", err)
	}
}

// hooked is a disk behind that calls a function before its first write.
type hooked struct {
	*Raw
	wrote atomic.Bool
	hook  func()
}

func (h *hooked) WriteVec(bufs [][]byte, off uint64) error {
	if !h.wrote.Swap(true) {
		h.hook()
	}
	return h.Raw.WriteVec(bufs, off)
}

// What is written to a cluster while it is copied is not overwritten with what it had.
func TestMergeCopiesWholeClusters(t *testing.T) {
	raw, err := openRaw(&medium{now: make([]byte, 1<<20), durable: make([]byte, 1<<20)})
	if err != nil {
		t.Fatal(err)
	}
	low := &hooked{Raw: raw}
	d, err := fresh(&medium{}, low)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.WriteVec([][]byte{stamp(5)}, 0); err != nil {
		t.Fatal(err)
	}
	m, err := NewMerge(d)
	if err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error, 1)
	low.hook = func() { // the cluster was read, and nothing of it is behind yet
		go func() { wrote <- m.WriteVec([][]byte{stamp(6)}, 0) }()
		select {
		case err := <-wrote:
			t.Errorf("a write did not wait for the copy of its cluster: %v", err)
			wrote <- err
		case <-time.After(100 * time.Millisecond):
		}
	}
	if err := errors.Join(m.Run(), <-wrote); err != nil {
		t.Fatal(err)
	}
	done, err := m.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if err := holds(done, append([][]uint64{{6}}, slices.Repeat([][]uint64{{0}}, 2047)...)); err != nil {
		t.Error(err)
	}
}

// Zeros over many clusters that are being merged take work in proportion to them.
func TestMergeZeroMuch(t *testing.T) {
	const size = 512 << 20
	l, err := newLayout(minBits, size, size)
	if err != nil {
		t.Fatal(err)
	}
	file := make([]byte, l.data)
	copy(file, l.header())
	d, err := open(&large{&medium{now: file}, l.end()}, &Raw{&large{&medium{}, size}, size})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Zero(0, size); err != nil {
		t.Fatal(err)
	}
	m, err := NewMerge(d)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := m.Zero(0, size); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}

// full is a disk behind with no room.
type full struct{ *Raw }

var errFull = errors.New("no room")

func (full) WriteVec([][]byte, uint64) error { return errFull }

// A disk behind that is full ends the merge, and is not the guest's trouble; once it may
// be used by itself, what it lacks was not written.
func TestMergeIntoFull(t *testing.T) {
	m := &medium{now: make([]byte, 1<<20), durable: make([]byte, 1<<20)}
	raw, err := openRaw(m)
	if err != nil {
		t.Fatal(err)
	}
	d, err := fresh(&medium{}, full{raw})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.WriteVec([][]byte{stamp(5)}, 0); err != nil {
		t.Fatal(err)
	}
	merge, err := NewMerge(d)
	if err != nil {
		t.Fatal(err)
	}
	if err := merge.WriteVec([][]byte{stamp(6)}, 0); err != nil {
		t.Error(err)
	}
	if err := merge.Run(); !errors.Is(err, errFull) {
		t.Error(err)
	}
	merge.copied.Store(true)
	if err := merge.WriteVec([][]byte{stamp(7)}, 0); !errors.Is(err, errFull) {
		t.Error(err)
	}
	if d, err = merge.Leave(); err != nil {
		t.Fatal(err)
	}
	if err := holds(d, append([][]uint64{{7}}, slices.Repeat([][]uint64{{0}}, 2047)...)); err != nil {
		t.Error(err)
	}
}

func TestWhatIsNotMerged(t *testing.T) {
	d, err := open(&medium{}, make(fixed, 1024))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewMerge(d); !errors.Is(err, ErrLower) {
		t.Errorf("into what is only read: %v", err)
	}
	if err := errors.Join(d.WriteVec([][]byte{stamp(5)}, 0), d.Flush()); err != nil {
		t.Fatal(err)
	}
	if _, err := fresh(d.file, make(fixed, 1024)); !errors.Is(err, ErrUsed) {
		t.Errorf("a new one of an old one: %v", err)
	}
	raw, err := openRaw(&medium{now: make([]byte, 1000)})
	if err != nil {
		t.Fatal(err)
	}
	if d, err = fresh(&medium{}, raw); err != nil {
		t.Fatal(err)
	}
	if _, err := NewMerge(d); !errors.Is(err, ErrLower) {
		t.Errorf("into what is smaller: %v", err)
	}
	for _, err := range []error{raw.ReadVec([][]byte{stamp(1)}, 512), raw.WriteVec([][]byte{stamp(1)}, 1<<60), raw.Zero(0, 1001)} {
		if !errors.Is(err, ErrBounds) {
			t.Error(err)
		}
	}
}
