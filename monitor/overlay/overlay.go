// SPDX-License-Identifier: Apache-2.0

// Package overlay is a disk that is written to above one that is only read: what was
// written is in the overlay's file, all else in the base.
//
// The file, numbers in little endian:
//
//	0       "VMOVRLAY"
//	8       version, 4 bytes: 1
//	12      logarithm of the size of a cluster, 4 bytes: 12 to 21
//	16      size of the disk in bytes, 8 bytes: whole sectors of 512
//	24      size of the base in bytes, 8 bytes: at most the disk's
//	32      sum of bytes 0 to 31, 8 bytes: FNV-1a; zeros up to 4096
//	4096    map: a bit for each cluster, the lowest of a byte first; zeros up to a page
//	        of 4096 bytes, then up to a whole cluster
//	...     the clusters, each at its own place; the file is sparse
//
// A cluster whose bit is set is in the file, any other in the base; what the disk has
// behind the base is zeros.
//
// A file that is empty, or has its size and zeros up to the first cluster, is one that is
// about to become an overlay: its size is on the medium before its header is written, and
// that is in one sector.
//
// Bits are only ever set, and only when all of their cluster is on the medium: a flush
// makes sure of the clusters, then writes the bits, then makes sure of them. So a power
// cut at any time, also one that keeps some sectors of a write and not others, in
// whatever order, leaves for each bit its old value or its new one, and either is right.
// There is no journal, no allocation and nothing to be repaired, and what is in the file
// is read and written as fast as the file is.
//
// In memory there is a bit for each cluster, in pages of 4 KiB that are made when
// something is written there: with clusters of 64 KiB, 2 MiB for a TiB that was written
// all over.
package overlay

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"vmctl/monitor/iov"
)

// ClusterBits is what a new overlay should have: clusters of 64 KiB.
const ClusterBits = 16

const (
	magic       = "VMOVRLAY"
	version     = 1
	headSize    = 40
	sector      = 512
	minBits     = 12
	maxBits     = 21
	maxSize     = 1 << 46 // bytes
	maxClusters = 1 << 28 // 32 MiB of bits
	page        = 4096    // bytes of the map that are written at once
	pageBits    = page * 8
	stripes     = 64
)

var order = binary.LittleEndian

var (
	// ErrFile is a file that is no overlay.
	ErrFile = errors.New("file is no overlay")
	// ErrVersion is an overlay of a version that is not known.
	ErrVersion = errors.New("version of the overlay is not known")
	// ErrHeader is an overlay whose header is damaged, or whose file is too short for it.
	ErrHeader = errors.New("header of the overlay is damaged")
	// ErrBase is a base that is not as large as the one that the overlay was made for.
	ErrBase = errors.New("base of the overlay has another size")
	// ErrSize is a disk that no overlay can be made for.
	ErrSize = errors.New("size of the disk must be whole sectors, at least the base's, and at most 2^28 clusters")
	// ErrBounds is an access that is not inside the disk.
	ErrBounds = errors.New("access out of the bounds of the disk")
	// ErrUsed is an overlay to which something was written, where a new one is wanted.
	ErrUsed = errors.New("overlay is not new")
	// ErrFlush is what any flush says after one has failed: what was written before
	// may be lost, and nobody can say what.
	ErrFlush = errors.New("an earlier flush has failed")
)

// Base is a disk that is read. It may be read side by side.
type Base interface {
	Size() int64
	ReadVec(bufs [][]byte, off uint64) error
	io.Closer
}

// store is the overlay's file. All of a transfer is done, or it fails.
type store interface {
	size() (uint64, error)
	read(bufs [][]byte, off uint64) error
	write(bufs [][]byte, off uint64) error
	zero(off, n uint64) error
	sync() error // what was written before it began is on the medium then
	io.Closer
}

// layout is where things are in the file.
type layout struct {
	bits     uint
	size     uint64
	base     uint64
	clusters uint64
	data     uint64 // where the first cluster is
}

func newLayout(bits uint, size, base uint64) (layout, error) {
	if bits < minBits || bits > maxBits || size == 0 || size > maxSize || size%sector != 0 || base > size {
		return layout{}, ErrSize
	}
	l := layout{bits: bits, size: size, base: base, clusters: (size-1)>>bits + 1}
	if l.clusters > maxClusters {
		return layout{}, ErrSize
	}
	pages := (l.clusters + pageBits - 1) / pageBits
	cluster := uint64(1) << bits
	l.data = (page + pages*page + cluster - 1) &^ (cluster - 1)
	return l, nil
}

// end is the size of the file.
func (l *layout) end() uint64 { return l.data + l.clusters<<l.bits }

// Create makes an empty file an overlay of a disk of a size, above a base of a size, in
// bytes. It is on the medium then. errors.Is: ErrSize.
func Create(f *os.File, clusterBits uint, size, base int64) error {
	return create(&osFile{f}, clusterBits, uint64(size), uint64(base))
}

func create(f store, clusterBits uint, size, base uint64) error {
	l, err := newLayout(clusterBits, size, base)
	if err != nil {
		return err
	}
	if err := f.write([][]byte{{0}}, l.end()-1); err != nil { // it has its size
		return err
	}
	if err := f.sync(); err != nil {
		return err
	}
	if err := f.write([][]byte{l.header()}, 0); err != nil {
		return err
	}
	return f.sync()
}

func (l *layout) header() []byte {
	b := make([]byte, headSize)
	copy(b, magic)
	order.PutUint32(b[8:], version)
	order.PutUint32(b[12:], uint32(l.bits))
	order.PutUint64(b[16:], l.size)
	order.PutUint64(b[24:], l.base)
	order.PutUint64(b[32:], sum(b[:32]))
	return b
}

// sum is FNV-1a: no more than a sign that a header is whole.
func sum(b []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

func parse(b []byte) (layout, error) {
	switch {
	case string(b[:8]) != magic:
		return layout{}, ErrFile
	case order.Uint32(b[8:]) != version:
		return layout{}, ErrVersion
	case order.Uint64(b[32:]) != sum(b[:32]):
		return layout{}, ErrHeader
	}
	l, err := newLayout(uint(order.Uint32(b[12:])), order.Uint64(b[16:]), order.Uint64(b[24:]))
	if err != nil {
		return layout{}, ErrHeader
	}
	return l, nil
}

// Disk is an overlay with its base. Its methods may be called side by side.
type Disk struct {
	layout
	file store
	low  Base

	pages []atomic.Pointer[bitmap] // nil: no bit is set
	// A cluster is moved into the file by one at a time.
	moving [stripes]sync.Mutex

	mu    sync.Mutex // guards dirty, and that a bit and its page's mark are set together
	dirty map[uint64]bool

	flushing sync.Mutex // one flush at a time; guards failed
	failed   bool
}

// bitmap is a page of the map.
type bitmap [page / 4]atomic.Uint32

// Open opens an overlay above its base, and takes both over. An empty file becomes one,
// of a disk of the base's size, and stays empty to look at if the power fails meanwhile.
// errors.Is: ErrFile, ErrVersion, ErrHeader, ErrBase, ErrSize.
func Open(f *os.File, base Base) (*Disk, error) { return open(&osFile{f}, base) }

func open(f store, base Base) (*Disk, error) {
	d, err := over(f, base)
	if err != nil {
		return nil, errors.Join(err, base.Close())
	}
	return d, nil
}

// New makes a new overlay of an empty file, which it takes over, above a base that is in
// use and stays the caller's after an error. errors.Is: those of Open, and ErrUsed.
func New(f *os.File, base Base) (*Disk, error) { return fresh(&osFile{f}, base) }

func fresh(f store, base Base) (*Disk, error) {
	d, err := over(f, base)
	if err != nil {
		return nil, err
	}
	for p := range d.pages {
		if d.pages[p].Load() != nil {
			return nil, errors.Join(ErrUsed, f.Close())
		}
	}
	return d, nil
}

// over takes the file over, and the base if all is well.
func over(f store, base Base) (*Disk, error) {
	d := &Disk{file: f, low: base, dirty: map[uint64]bool{}}
	if err := d.load(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return d, nil
}

// begin makes an overlay of a file that is to become one, and returns the file's size.
func (d *Disk) begin() (uint64, error) {
	size, err := d.file.size()
	if err != nil {
		return 0, err
	}
	low := uint64(d.low.Size())
	disk := (low + sector - 1) &^ (sector - 1)
	if size > 0 {
		l, err := newLayout(ClusterBits, disk, low)
		if err != nil || size != l.end() {
			return size, nil //nolint:nilerr // its header says what it is
		}
		if blank, err := isBlank(d.file, l.data); err != nil || !blank {
			return size, err
		}
	}
	if err := create(d.file, ClusterBits, disk, low); err != nil {
		return 0, err
	}
	return d.file.size()
}

// isBlank reports whether a file begins with so many zeros, in whole pages.
func isBlank(f store, n uint64) (bool, error) {
	b := make([]byte, page)
	for off := uint64(0); off < n; off += page {
		if err := f.read([][]byte{b}, off); err != nil || !iov.IsZero(b) {
			return false, err
		}
	}
	return true, nil
}

func (d *Disk) load() error {
	size, err := d.begin()
	if err != nil {
		return err
	}
	b := make([]byte, page)
	if size < page {
		return ErrFile
	}
	if err := d.file.read([][]byte{b}, 0); err != nil {
		return err
	}
	if d.layout, err = parse(b); err != nil {
		return err
	}
	switch {
	case size < d.end():
		return ErrHeader
	case uint64(d.low.Size()) != d.base:
		return ErrBase
	}
	d.pages = make([]atomic.Pointer[bitmap], (d.clusters+pageBits-1)/pageBits)
	for p := range d.pages {
		if err := d.file.read([][]byte{b}, page+uint64(p)*page); err != nil {
			return err
		}
		var bits *bitmap
		for i := range page / 4 {
			v := order.Uint32(b[4*i:])
			if v == 0 {
				continue
			}
			if bits == nil {
				bits = new(bitmap)
			}
			bits[i].Store(v)
		}
		d.pages[p].Store(bits)
	}
	return nil
}

// Size is the size of the disk in bytes.
func (d *Disk) Size() int64 { return int64(d.size) }

// Close flushes, as what has no bit in the file would be lost, and lets go of file and
// base.
func (d *Disk) Close() error {
	d.mu.Lock()
	left := len(d.dirty) > 0
	d.mu.Unlock()
	var err error
	if left {
		err = d.Flush()
	}
	return errors.Join(err, d.file.Close(), d.low.Close())
}

func (d *Disk) cluster() uint64 { return 1 << d.bits }

// has reports whether a cluster is in the file.
func (d *Disk) has(c uint64) bool {
	b := d.pages[c/pageBits].Load()
	return b != nil && b[c%pageBits/32].Load()>>(c%32)&1 != 0
}

// set says that a cluster is in the file: all of it was written.
func (d *Disk) set(c uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := &d.pages[c/pageBits]
	b := p.Load()
	if b == nil {
		b = new(bitmap)
		p.Store(b)
	}
	b[c%pageBits/32].Or(1 << (c % 32))
	d.dirty[c/pageBits] = true
}

// run is how many of the n bytes from an offset on are in clusters that are in the file,
// or are not, as the first of them.
func (d *Disk) run(off, n uint64) (bytes uint64, has bool) {
	c := off >> d.bits
	has = d.has(c)
	for bytes = (c+1)<<d.bits - off; bytes < n; bytes += d.cluster() {
		if c++; d.has(c) != has {
			return bytes, has
		}
	}
	return n, has
}

func (d *Disk) within(off, n uint64) bool { return off <= d.size && n <= d.size-off }

// ReadVec fills buffers, one behind the other, from an offset on, or fails. It uses the
// list up. errors.Is: ErrBounds, and what reading file or base fails with.
func (d *Disk) ReadVec(bufs [][]byte, off uint64) error {
	n := iov.Len(bufs)
	if !d.within(off, n) {
		return ErrBounds
	}
	for n > 0 {
		part, has := d.run(off, n)
		var err error
		if to := iov.Take(&bufs, part); has {
			err = d.file.read(to, d.data+off)
		} else {
			err = d.readBase(to, off, part)
		}
		if err != nil {
			return err
		}
		off, n = off+part, n-part
	}
	return nil
}

func (d *Disk) readBase(bufs [][]byte, off, n uint64) error {
	inside := min(n, d.base-min(off, d.base))
	head := iov.Take(&bufs, inside)
	iov.Zero(bufs)
	if inside == 0 {
		return nil
	}
	return d.low.ReadVec(head, off)
}

// WriteVec writes buffers, one behind the other, from an offset on. When it fails, what
// is there then is not said. It uses the list up. errors.Is: ErrBounds, and what reading
// the base or writing the file fails with.
func (d *Disk) WriteVec(bufs [][]byte, off uint64) error {
	n := iov.Len(bufs)
	if !d.within(off, n) {
		return ErrBounds
	}
	return d.each(off, n, func(off, part uint64) error {
		return d.file.write(iov.Take(&bufs, part), d.data+off)
	}, func(c, off, part uint64) error {
		return d.move(c, off, part, iov.Take(&bufs, part))
	})
}

// Zero makes so many bytes from an offset on zeros, and gives the host back what it can.
// Otherwise as WriteVec.
func (d *Disk) Zero(off, n uint64) error {
	if !d.within(off, n) {
		return ErrBounds
	}
	return d.each(off, n, func(off, part uint64) error {
		return d.file.zero(d.data+off, part)
	}, func(c, off, part uint64) error {
		if part == d.cluster() {
			return d.file.zero(d.data+off, part)
		}
		return d.move(c, off, part, [][]byte{make([]byte, part)})
	})
}

// each changes bytes in the file where their clusters are there, and first moves those
// that are not, by another function.
func (d *Disk) each(off, n uint64, inPlace func(off, n uint64) error, move func(c, off, n uint64) error) error {
	for n > 0 {
		c := off >> d.bits
		part := min(n, (c+1)<<d.bits-off)
		var err error
		if d.has(c) {
			part, _ = d.run(off, n)
			err = inPlace(off, part)
		} else { // one at a time: to look for the run's end each time is its square
			err = d.into(c, off, part, inPlace, move)
		}
		if err != nil {
			return err
		}
		off, n = off+part, n-part
	}
	return nil
}

func (d *Disk) into(c, off, n uint64, inPlace func(off, n uint64) error, move func(c, off, n uint64) error) error {
	m := &d.moving[c%stripes]
	m.Lock()
	defer m.Unlock()
	if d.has(c) { // since it was looked for
		return inPlace(off, n)
	}
	if err := move(c, off, n); err != nil {
		return err
	}
	d.set(c)
	return nil
}

// move writes a cluster that is not in the file: what is new of it, and around that
// what the base has.
func (d *Disk) move(c, off, n uint64, bufs [][]byte) error {
	first := c << d.bits
	head, tail := off-first, first+d.cluster()-off-n
	if head+tail == 0 {
		return d.file.write(bufs, d.data+off)
	}
	old := make([]byte, head+tail)
	if err := d.readBase([][]byte{old[:head]}, first, head); err != nil {
		return err
	}
	// The last cluster may end behind the disk: there the base has zeros.
	if err := d.readBase([][]byte{old[head:]}, off+n, tail); err != nil {
		return err
	}
	all := append([][]byte{old[:head]}, bufs...)
	return d.file.write(append(all, old[head:]), d.data+first)
}

// Flush returns when all that was written before it began is on the medium. errors.Is:
// ErrFlush, and what it fails with first.
func (d *Disk) Flush() error {
	d.flushing.Lock()
	defer d.flushing.Unlock()
	if d.failed {
		return ErrFlush
	}
	err := d.flush()
	d.failed = err != nil
	return err
}

func (d *Disk) flush() error {
	// Bits that are set after this wait for the next flush: their clusters may not be
	// on the medium.
	d.mu.Lock()
	written := make(map[uint64][]byte, len(d.dirty))
	for p := range d.dirty {
		b := make([]byte, page)
		for i := range page / 4 {
			order.PutUint32(b[4*i:], d.pages[p].Load()[i].Load())
		}
		written[p] = b
	}
	clear(d.dirty)
	d.mu.Unlock()
	if err := d.file.sync(); err != nil || len(written) == 0 {
		return err
	}
	for p, b := range written {
		if err := d.file.write([][]byte{b}, page+p*page); err != nil {
			return err
		}
	}
	return d.file.sync()
}
