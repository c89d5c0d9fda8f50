// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"vmctl/monitor/qcow2"
)

// medium is a file on a medium that loses power: what was written since the last sync
// has got there by sectors, in any order, or has not.
type medium struct {
	mu      sync.Mutex
	now     []byte // what is read
	durable []byte
	since   []change // since the last sync
	before  func()   // called before each change and each sync

	forgetful bool // does not sync clusters, from data on
	data      uint64
}

type change struct {
	off  uint64
	data []byte
}

func (m *medium) size() (uint64, error) { return uint64(len(m.now)), nil }
func (m *medium) Close() error          { return nil }

func (m *medium) read(bufs [][]byte, off uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range bufs {
		if off > uint64(len(m.now)) || copy(b, m.now[off:]) < len(b) {
			return io.ErrUnexpectedEOF
		}
		off += uint64(len(b))
	}
	return nil
}

func (m *medium) write(bufs [][]byte, off uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.step()
	data := bytes.Join(bufs, nil)
	if more := int(off) + len(data) - len(m.now); more > 0 {
		m.now = append(m.now, make([]byte, more)...)
	}
	copy(m.now[off:], data)
	m.since = append(m.since, change{off, data})
	return nil
}

func (m *medium) zero(off, n uint64) error { return m.write([][]byte{make([]byte, n)}, off) }

func (m *medium) sync() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.step()
	if m.forgetful {
		m.since = slices.DeleteFunc(m.since, func(c change) bool {
			if c.off < m.data {
				copy(m.durable[c.off:], c.data)
			}
			return c.off < m.data
		})
		return nil
	}
	m.durable = append(m.durable[:0], m.now...)
	m.since = nil
	return nil
}

func (m *medium) step() {
	if m.before != nil {
		m.before()
	}
}

// cut is what is left after a power cut now.
func (m *medium) cut(r *rand.Rand) *medium {
	b := bytes.Clone(m.durable)
	if more := len(m.now) - len(b); more > 0 && (len(b) > 0 || r.IntN(2) == 0) {
		b = append(b, make([]byte, more)...)
	}
	all := r.IntN(4) // mostly some, at times all or nothing
	list := slices.Clone(m.since)
	if all > 1 {
		r.Shuffle(len(list), func(i, k int) { list[i], list[k] = list[k], list[i] })
	}
	for _, c := range list {
		for at := 0; at < len(c.data) && len(b) > 0; {
			n := min(sector-int(c.off+uint64(at))%sector, len(c.data)-at)
			if all == 0 || all > 1 && r.IntN(2) == 0 {
				copy(b[c.off+uint64(at):], c.data[at:at+n])
			}
			at += n
		}
	}
	return &medium{now: b, durable: bytes.Clone(b)}
}

// fixed is a base of bytes.
type fixed []byte

func (f fixed) Size() int64 { return int64(len(f)) }
func (fixed) Close() error  { return nil }
func (f fixed) ReadVec(bufs [][]byte, off uint64) error {
	for _, b := range bufs {
		if off > uint64(len(f)) || copy(b, f[off:]) < len(b) {
			return io.ErrUnexpectedEOF
		}
		off += uint64(len(b))
	}
	return nil
}

func newMedium(t *testing.T, bits uint, size, base uint64) *medium {
	t.Helper()
	l, err := newLayout(bits, size, base)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, l.end())
	copy(b, l.header())
	return &medium{now: b, durable: bytes.Clone(b)}
}

// stamp is a sector that is there once.
func stamp(v uint64) []byte {
	return bytes.Repeat(binary.LittleEndian.AppendUint64(nil, v), sector/8)
}

// Whenever the power fails, each sector has what the last flush that was acknowledged
// made sure of, or something that was written to it after that flush began.
func TestPowerCut(t *testing.T) {
	cuts := 0
	for seed := range uint64(40) {
		n, err := powerCuts(t, seed, false)
		if cuts += n; err != nil {
			t.Fatalf("seed %d, %d. cut: %v", seed, n, err)
		}
	}
	t.Logf("%d power cuts", cuts)
}

// The same finds that a flush is wrong which makes sure of the map alone.
func TestForgetfulFlush(t *testing.T) {
	for seed := range uint64(40) {
		if _, err := powerCuts(t, seed, true); err != nil {
			return
		}
	}
	t.Error("a flush that forgets to make sure of clusters passes")
}

// powerCuts changes a disk at random, and cuts the power before each change of its file
// and each sync.
func powerCuts(t *testing.T, seed uint64, forgetful bool) (cuts int, failed error) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	sectors := uint64(40 + r.IntN(200))
	base := make(fixed, 0, sectors*sector)
	// may is, for each sector, what it may have: first what is sure.
	may := make([][]uint64, sectors)
	inBase := sectors - uint64(r.IntN(30))
	for i := range sectors {
		may[i] = []uint64{0}
		if i < inBase {
			may[i][0] = 1<<32 | i
			base = append(base, stamp(may[i][0])...)
		}
	}
	m := newMedium(t, uint(12+r.IntN(3)), sectors*sector, uint64(len(base)))
	d, err := open(m, base)
	if err != nil {
		return 0, err
	}
	if m.forgetful = forgetful; forgetful {
		m.data = d.data
	}
	cut := func() {
		if cuts++; failed == nil {
			failed = afterCut(m.cut(r), base, may)
		}
	}
	sure := func() {
		for i := range may {
			may[i] = may[i][len(may[i])-1:]
		}
	}
	m.before = cut
	next := uint64(2)
	for range 60 {
		first := r.Uint64N(sectors)
		n := min(1+r.Uint64N(1<<r.IntN(6)), sectors-first)
		var data []byte
		what := r.IntN(6)
		for i := range n {
			switch v := next; what {
			case 0:
			case 1:
				may[first+i] = append(may[first+i], 0)
			default:
				may[first+i] = append(may[first+i], v)
				data = append(data, stamp(v)...)
				next++
			}
		}
		switch what {
		case 0:
			err = d.Flush()
			sure()
			cut()
		case 1:
			err = d.Zero(first*sector, n*sector)
		default:
			at := r.IntN(len(data))
			err = d.WriteVec([][]byte{data[:at], data[at:]}, first*sector)
		}
		if err != nil {
			return cuts, err
		}
	}
	if err = d.Flush(); err == nil {
		sure()
		cut()
	}
	return cuts, errors.Join(failed, err)
}

// afterCut opens what is left, and looks at each sector.
func afterCut(left *medium, base fixed, may [][]uint64) error {
	d, err := open(left, base)
	if err != nil {
		return err
	}
	b := make([]byte, d.Size())
	if err := d.ReadVec([][]byte{b}, 0); err != nil {
		return err
	}
	for i := range may {
		s := b[i*sector:][:sector]
		if v := binary.LittleEndian.Uint64(s); !slices.Contains(may[i], v) || !bytes.Equal(s, stamp(v)) {
			return fmt.Errorf("sector %d has %#x, and may have %#x", i, v, may[i])
		}
	}
	return nil
}

// Many at once write to disks of real files, above an image of qcow2's reader.
func TestReal(t *testing.T) {
	const sectors, workers = 4096, 4
	dir := t.TempDir()
	base := bytes.Repeat([]byte("the base; "), 100000)
	if err := os.WriteFile(filepath.Join(dir, "base"), base, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "overlay"))
	if err != nil {
		t.Fatal(err)
	}
	if err := Create(f, ClusterBits, sectors*sector, int64(len(base))); err != nil {
		t.Fatal(err)
	}
	again := func(f *os.File) *Disk {
		t.Helper()
		b, err := os.Open(filepath.Join(dir, "base"))
		if err != nil {
			t.Fatal(err)
		}
		low, err := qcow2.Open(qcow2.File{File: b, Raw: true})
		if err != nil {
			t.Fatal(err)
		}
		d, err := Open(f, low)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	d := again(f)
	want := make([]byte, sectors*sector)
	copy(want, base)
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			// Each has every fourth run of 5 sectors: they meet in clusters.
			r := rand.New(rand.NewPCG(uint64(w), 3))
			for range 300 {
				first := (r.IntN(sectors/5/workers)*workers + w) * 5
				n := 1 + r.IntN(5)
				part := want[first*sector:][:n*sector]
				if r.IntN(5) == 0 {
					clear(part)
					if err := d.Zero(uint64(first*sector), uint64(n*sector)); err != nil {
						t.Error(err)
					}
				} else {
					copy(part, fmt.Appendf(nil, "%d %d", w, r.Uint64()))
					if err := d.WriteVec([][]byte{bytes.Clone(part[:100]), bytes.Clone(part[100:])}, uint64(first*sector)); err != nil {
						t.Error(err)
					}
				}
				got := make([]byte, len(part))
				if err := d.ReadVec([][]byte{got}, uint64(first*sector)); err != nil || !bytes.Equal(got, part) {
					t.Errorf("%d sectors from %d on differ: %v", n, first, err)
				}
				if r.IntN(50) == 0 {
					if err := d.Flush(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	all.Wait()
	if err := d.Zero(64<<10, 192<<10); err != nil {
		t.Fatal(err)
	}
	clear(want[64<<10:][:192<<10])
	if err := d.Flush(); err != nil {
		t.Fatal(err)
	}
	d.Close()
	unflushed(t)
	if f, err = os.OpenFile(filepath.Join(dir, "overlay"), os.O_RDWR, 0); err != nil {
		t.Fatal(err)
	}
	d = again(f)
	defer d.Close()
	got := make([]byte, len(want))
	if err := d.ReadVec([][]byte{got}, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("opened again, it differs: %v", err)
	}
	for _, err := range []error{
		d.ReadVec([][]byte{got[:512]}, sectors*sector-511), d.WriteVec([][]byte{got[:512]}, 1<<63), d.Zero(0, sectors*sector+1),
	} {
		if !errors.Is(err, ErrBounds) {
			t.Errorf("outside: %v", err)
		}
	}
}

// What was not flushed is there when the disk was closed, as with a file.
func unflushed(t *testing.T) {
	t.Helper()
	m := &medium{}
	d, err := open(m, make(fixed, 1000))
	if err != nil || d.Size() != 1024 {
		t.Fatalf("an empty file: %v", err)
	}
	if err := errors.Join(d.WriteVec([][]byte{stamp(5)}, 512), d.Close()); err != nil {
		t.Fatal(err)
	}
	if d, err = open(m, make(fixed, 1000)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, sector)
	if err := d.ReadVec([][]byte{b}, 512); err != nil || !bytes.Equal(b, stamp(5)) {
		t.Errorf("closed without a flush: %v", err)
	}
}

// large is a file of a size that no test writes.
type large struct {
	*medium
	bytes uint64
}

func (l *large) size() (uint64, error)   { return l.bytes, nil }
func (*large) zero(uint64, uint64) error { return nil }

// Zeros over many clusters take work in proportion to them, and not to their square: a
// guest may ask for as much as it likes.
func TestZeroMuch(t *testing.T) {
	const size = 512 << 20
	l, err := newLayout(minBits, size, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := make([]byte, l.data)
	copy(file, l.header())
	d, err := open(&large{&medium{now: file}, l.end()}, fixed{})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := d.Zero(0, size); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	if n, has := d.run(0, size); n != size || !has {
		t.Errorf("%d bytes of it are there", n)
	}
}

// broken fails to sync, once.
type broken struct {
	*medium
	fails bool
}

var errMedium = errors.New("the medium is broken")

func (b *broken) sync() error {
	if b.fails {
		b.fails = false
		return errMedium
	}
	return b.medium.sync()
}

// After a flush that failed none succeeds: the kernel may have dropped what it could
// not write.
func TestFlushFails(t *testing.T) {
	b := &broken{newMedium(t, 12, 1<<20, 0), true}
	d, err := open(b, fixed{})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Flush(); !errors.Is(err, errMedium) {
		t.Error(err)
	}
	if err := d.Flush(); !errors.Is(err, ErrFlush) {
		t.Error(err)
	}
}

func TestFilesThatAreNone(t *testing.T) {
	for name, c := range map[string]struct {
		bend func(*medium) *medium
		want error
	}{
		"whole":         {func(m *medium) *medium { return m }, nil},
		"empty":         {func(m *medium) *medium { return &medium{} }, nil},
		"short":         {func(m *medium) *medium { m.now = m.now[:100]; return m }, ErrFile},
		"other magic":   {func(m *medium) *medium { m.now[0] = 'X'; return m }, ErrFile},
		"other version": {func(m *medium) *medium { m.now[8] = 2; return m }, ErrVersion},
		"damaged":       {func(m *medium) *medium { m.now[20] ^= 1; return m }, ErrHeader},
		"cut":           {func(m *medium) *medium { m.now = m.now[:len(m.now)-1]; return m }, ErrHeader},
		"other base":    {func(*medium) *medium { return newMedium(t, 12, 1<<20, 1024) }, ErrBase},
	} {
		if _, err := open(c.bend(newMedium(t, 12, 1<<20, 512)), make(fixed, 512)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	for _, c := range []struct {
		bits       uint
		size, base int64
	}{{11, 512, 0}, {22, 512, 0}, {16, 0, 0}, {16, 511, 0}, {16, 512, 513}, {12, 1<<40 + 4096, 0}, {16, -512, 0}, {16, 512, -1}} {
		if err := Create(nil, c.bits, c.size, c.base); !errors.Is(err, ErrSize) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// FuzzOpen: whatever a file holds, it is refused or it is a disk.
func FuzzOpen(f *testing.F) {
	l, err := newLayout(12, 64<<10, 512)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(l.header(), 1, 2, 3))
	f.Fuzz(func(t *testing.T, head []byte) {
		m := &medium{now: make([]byte, 256<<10), durable: make([]byte, 256<<10)}
		copy(m.now, head)
		d, err := open(m, make(fixed, 512))
		if err != nil {
			return
		}
		b := make([]byte, min(d.Size(), 64<<10))
		if err := d.ReadVec([][]byte{b}, 0); err != nil {
			t.Error(err)
		}
	})
}

func benchmark(b *testing.B, size int, raw bool) {
	dir := b.TempDir()
	f, err := os.Create(filepath.Join(dir, "overlay"))
	if err != nil {
		b.Fatal(err)
	}
	const disk = 64 << 20
	if err := Create(f, ClusterBits, disk, 0); err != nil {
		b.Fatal(err)
	}
	d, err := Open(f, fixed{})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	p := make([]byte, 1<<20)
	for off := uint64(0); off < disk; off += uint64(len(p)) {
		if err := d.WriteVec([][]byte{p}, off); err != nil {
			b.Fatal(err)
		}
	}
	r := rand.New(rand.NewPCG(1, 1))
	read := d.ReadVec
	if raw {
		read = func(bufs [][]byte, off uint64) error { return d.file.read(bufs, d.data+off) }
	}
	b.SetBytes(int64(size))
	for b.Loop() {
		if err := read([][]byte{p[:size]}, r.Uint64N(uint64((disk-size)/4096))*4096); err != nil {
			b.Fatal(err)
		}
	}
}

// Clusters that are there are read as fast as the file is.
func BenchmarkRead(b *testing.B) {
	for _, size := range []int{4096, 1 << 20} {
		b.Run(fmt.Sprintf("%d/overlay", size), func(b *testing.B) { benchmark(b, size, false) })
		b.Run(fmt.Sprintf("%d/file", size), func(b *testing.B) { benchmark(b, size, true) })
	}
}
