// SPDX-License-Identifier: Apache-2.0

// Package qcow2 reads QEMU's disk images of version 2 and 3, with compressed and zero
// clusters, subclusters, and backing files, as QEMU's docs/interop/qcow2.txt describes
// them. It writes none.
//
// Whoever wrote an image is a stranger. No number of it is trusted: what leads out of
// its file, overflows or contradicts itself is an error, of Open in the header and of
// the read that meets it elsewhere. Reading takes work in proportion to what is read,
// and memory as follows, for a disk and not for each file of its chain:
//
//   - 128 KiB of L1 and L2 tables;
//   - 256 KiB of clusters that were compressed, or one cluster if that is more (2 MiB
//     at the most), and as soon as one is read, 50 KiB of tables to inflate it, or for
//     zstd up to 150 KiB and the compressed bytes of the largest cluster so far.
//
// A name of a backing file is never used: the files of a chain come open, and an image
// is refused when it has a backing file and none was given, or the other way round. So
// an image cannot name a file of the host and show it to a guest.
package qcow2

import (
	"errors"
	"io"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"vmctl/monitor/iov"
)

// MaxFiles is how many files a chain has at the most.
const MaxFiles = 16

var (
	// ErrFile is a file that is neither regular nor a block device.
	ErrFile = errors.New("image is no regular file or block device")
	// ErrFiles is a chain of no file, of more than MaxFiles, or with files behind a
	// raw one.
	ErrFiles = errors.New("chain of images must have 1 to 16 files, and only its last may be raw")
	// ErrNoBacking is an image whose backing file was not given.
	ErrNoBacking = errors.New("qcow2 image has a backing file, and none was given")
	// ErrBacking is an image that was given a backing file and has none.
	ErrBacking = errors.New("qcow2 image has no backing file, and one was given")
	// ErrBackingFormat is a backing file whose format is another in the image.
	ErrBackingFormat = errors.New("qcow2 image has a backing file of another format than was given")
	// ErrCorrupt is a place of an image that cannot be read as its tables, or the
	// compressed bytes there, are damaged.
	ErrCorrupt = errors.New("qcow2 image is damaged")
	// ErrBounds is a read that is not inside the disk.
	ErrBounds = errors.New("read out of the bounds of the disk")
)

// File is one file of a chain.
type File struct {
	File *os.File
	Raw  bool // else it is qcow2
}

// Image is a disk. Its methods may be called side by side.
type Image struct {
	layers []*layer
	tables cache
	loose  clusters
}

// layer is one file of the chain.
type layer struct {
	*header     // nil: raw
	index   int // in the chain
	fd      int // of file
	file    *os.File
	end     uint64 // of the file, in bytes
	disk    uint64 // bytes of the disk that the file describes
}

// Open makes a disk of a chain of files: an image, its backing file, that one's, and
// so on. It takes the files over. errors.Is: the errors of this package.
func Open(files ...File) (*Image, error) {
	i := &Image{}
	if err := i.open(files); err != nil {
		errs := []error{err}
		for _, f := range files {
			errs = append(errs, f.File.Close())
		}
		return nil, errors.Join(errs...)
	}
	return i, nil
}

func (i *Image) open(files []File) error {
	if len(files) < 1 || len(files) > MaxFiles {
		return ErrFiles
	}
	largest := uint(minClusterBits)
	for n, f := range files {
		l, err := openLayer(f)
		if err == nil {
			err = l.fits(files[n+1:])
		}
		if err != nil {
			return &fileError{n, "", err}
		}
		l.index = n
		i.layers = append(i.layers, l)
		if l.header != nil {
			largest = max(largest, l.clusterBits)
		}
	}
	i.loose.room = clustersFor(1 << largest)
	return nil
}

func openLayer(f File) (*layer, error) {
	l := &layer{file: f.File, fd: int(f.File.Fd())}
	var st unix.Stat_t
	if err := unix.Fstat(l.fd, &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFBLK {
		return nil, ErrFile
	}
	end, err := unix.Seek(l.fd, 0, unix.SEEK_END)
	if err != nil {
		return nil, os.NewSyscallError("lseek", err)
	}
	l.end, l.disk = uint64(end), uint64(end)
	if f.Raw {
		return l, nil
	}
	if l.header, err = readHeader(f.File, l.end); err != nil {
		return nil, err
	}
	l.disk = l.size
	return l, nil
}

// fits compares what an image says of its backing file with what comes behind it.
func (l *layer) fits(rest []File) error {
	switch {
	case l.header == nil && len(rest) > 0:
		return ErrFiles
	case l.header == nil:
		return nil
	case l.hasBacking && len(rest) == 0:
		return ErrNoBacking
	case !l.hasBacking && len(rest) > 0:
		return ErrBacking
	case !l.hasBacking:
		return nil
	}
	switch l.backingFormat {
	case "":
		return nil
	case "qcow2":
		if !rest[0].Raw {
			return nil
		}
	case "raw", "file", "host_device": // the latter two are how QEMU reads a raw one
		if rest[0].Raw {
			return nil
		}
	}
	return ErrBackingFormat
}

// Size is the size of the disk in bytes.
func (i *Image) Size() int64 { return int64(i.layers[0].disk) }

// BackingName is what an image of the chain calls its backing file, "" if it has none.
// The name is a stranger's, and good for nothing but to be shown.
func (i *Image) BackingName(file int) string {
	if h := i.layers[file].header; h != nil {
		return h.backing
	}
	return ""
}

// fileError says in which file of the chain it is, and where. (Package fmt would make
// each monitor 180 KB larger.)
type fileError struct {
	file  int
	where string
	err   error
}

func (e *fileError) Error() string {
	text := e.err.Error() + ": file " + strconv.Itoa(e.file)
	if e.where != "" {
		text += ": " + e.where
	}
	return text
}

func (e *fileError) Unwrap() error { return e.err }

// Close lets go of the files.
func (i *Image) Close() error {
	var errs []error
	for _, l := range i.layers {
		errs = append(errs, l.file.Close())
	}
	return errors.Join(errs...)
}

// ReadAt is that of io.ReaderAt. errors.Is: io.EOF, and those of ReadVec.
func (i *Image) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, ErrBounds
	}
	n, short := len(p), error(nil)
	if room := i.Size() - off; room < int64(n) {
		n, short = int(max(room, 0)), io.EOF
	}
	if n == 0 {
		return 0, short
	}
	if err := i.ReadVec([][]byte{p[:n]}, uint64(off)); err != nil {
		return 0, err
	}
	return n, short
}

// ReadVec fills buffers, one behind the other, from an offset on, or fails; what is in
// them then is not said. It uses the list up. errors.Is: ErrBounds, ErrCorrupt, and
// what reading a file fails with.
func (i *Image) ReadVec(bufs [][]byte, off uint64) error {
	n := iov.Len(bufs)
	if disk := i.layers[0].disk; off > disk || n > disk-off {
		return ErrBounds
	}
	return i.read(0, bufs, off, n)
}

// read fills buffers of n bytes with what a layer and those behind it have.
func (i *Image) read(index int, bufs [][]byte, off, n uint64) error {
	if index == len(i.layers) {
		iov.Zero(bufs)
		return nil
	}
	l := i.layers[index]
	// A backing file may be smaller than the disk.
	if inside := min(n, l.disk-min(off, l.disk)); inside < n {
		head := iov.Take(&bufs, inside)
		iov.Zero(bufs)
		bufs, n = head, inside
	}
	if l.header == nil {
		return l.readFile(bufs, off, n)
	}
	for n > 0 {
		e, err := i.find(l, off, n)
		if err != nil {
			return err
		}
		part := iov.Take(&bufs, e.n)
		switch e.kind {
		case behind:
			err = i.read(index+1, part, off, e.n)
		case zeros:
			iov.Zero(part)
		case data:
			err = l.readFile(part, e.host, e.n)
		case packed:
			err = i.loose.read(l, e.host, off&(l.cluster()-1), part)
		}
		if err != nil {
			return err
		}
		off, n = off+e.n, n-e.n
	}
	return nil
}

// readFile fills buffers of n bytes from the file. What a cluster has behind the end
// of the file was never written, and is zeros; a whole cluster is not looked for there.
func (l *layer) readFile(bufs [][]byte, off, n uint64) error {
	if inside := min(n, l.end-min(off, l.end)); inside < n {
		head := iov.Take(&bufs, inside)
		iov.Zero(bufs)
		bufs, n = head, inside
	}
	for n > 0 {
		got, err := unix.Preadv2(l.fd, bufs, int64(off), 0)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return os.NewSyscallError("preadv2", err)
		case got == 0: // the file is shorter than it was
			return io.ErrUnexpectedEOF
		}
		iov.Take(&bufs, uint64(got))
		off, n = off+uint64(got), n-uint64(got)
	}
	return nil
}

// cluster is the size of a cluster in bytes.
func (l *layer) cluster() uint64 { return 1 << l.clusterBits }

// cache keeps blocks of L1 and L2 tables. They are found by their place in a file and
// not by table: a table may have 2 MiB, and what is left out is in the kernel's cache.
type cache struct {
	mu     sync.Mutex // guards all
	blocks map[place]*block
	recent uint64 // number of uses
	spare  []*block
}

const (
	blockSize = 4096
	maxBlocks = 32
)

// place is where a block is.
type place struct {
	file int
	at   uint64
}

type block struct {
	used uint64
	n    int // bytes that the file has there
	data [blockSize]byte
}

// entry reads a number of one or two words, of 8 bytes, of a table. The numbers do not
// cross a block: they are aligned to their size.
func (c *cache) entry(l *layer, at uint64, words int) (v [2]uint64, err error) {
	p := place{l.index, at &^ (blockSize - 1)}
	c.mu.Lock()
	defer c.mu.Unlock()
	b, ok := c.blocks[p]
	if !ok {
		if b, err = c.load(l, p); err != nil {
			return v, err
		}
	}
	c.recent++
	b.used = c.recent
	o := int(at - p.at)
	if o+8*words > b.n {
		return v, l.corrupt("table that ends behind the file")
	}
	for w := range words {
		v[w] = order.Uint64(b.data[o+8*w:])
	}
	return v, nil
}

// load reads a block, without the lock, and keeps it in the place of the one that was
// used least.
func (c *cache) load(l *layer, p place) (*block, error) {
	var b *block
	if n := len(c.spare); n > 0 {
		b, c.spare = c.spare[n-1], c.spare[:n-1]
	} else {
		b = new(block)
	}
	c.mu.Unlock()
	b.n = int(min(blockSize, l.end-min(p.at, l.end)))
	err := l.readFile([][]byte{b.data[:b.n]}, p.at, uint64(b.n))
	c.mu.Lock()
	if err != nil {
		c.spare = append(c.spare, b)
		return nil, err
	}
	if c.blocks == nil {
		c.blocks = make(map[place]*block, maxBlocks)
	}
	if other, ok := c.blocks[p]; ok { // read twice at once
		c.spare = append(c.spare, b)
		return other, nil
	}
	if len(c.blocks) >= maxBlocks {
		c.evict()
	}
	c.blocks[p] = b
	return b, nil
}

func (c *cache) evict() {
	var oldest place
	least := ^uint64(0)
	for p, b := range c.blocks {
		if b.used < least {
			oldest, least = p, b.used
		}
	}
	c.spare = append(c.spare, c.blocks[oldest])
	delete(c.blocks, oldest)
}
