// SPDX-License-Identifier: Apache-2.0

// Package blk is virtio's block device on a raw file: a regular file or a block
// device of the host. Its data goes straight between the file and guest memory,
// by io_uring or, where the host refuses rings, by system calls of a few workers.
// The workers also serve disks that are made of files in some other way.
package blk

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/monitor/rate"
	"vmctl/monitor/virtio"
	"vmctl/monitor/wire"
)

const (
	deviceType = 2
	class      = 0x018000 // mass storage, of no kind that PCI knows

	sector    = 512
	queueSize = 128
	maxSegs   = queueSize - 2 // a request has a header and a status

	// MaxQueues is how many queues a disk has at the most.
	MaxQueues = 4

	// maxClear is what one request may discard or fill with zeros, in sectors.
	maxClear = 1 << 22
)

// Features (virtio 1.2, 5.2.3).
const (
	featureSegMax      = 1 << 2
	featureReadOnly    = 1 << 5
	featureBlockSize   = 1 << 6
	featureFlush       = 1 << 9
	featureQueues      = 1 << 12
	featureDiscard     = 1 << 13
	featureWriteZeroes = 1 << 14
)

// Fields of the configuration (5.2.4).
const (
	cfgCapacity     = 0
	cfgSegMax       = 12
	cfgBlockSize    = 20
	cfgQueues       = 34
	cfgDiscardMax   = 36
	cfgDiscardSegs  = 40
	cfgDiscardAlign = 44
	cfgZeroesMax    = 48
	cfgZeroesSegs   = 52
	cfgZeroesUnmap  = 56
	cfgSize         = 60
)

var order = binary.LittleEndian

var (
	// ErrFile is a file that cannot be a disk.
	ErrFile = errors.New("disk is no regular file or block device, or has no whole sector")
	// ErrReadOnly is a disk to write to whose file is not open for writing.
	ErrReadOnly = errors.New("disk is not open for writing")
	// ErrResized is a disk that had another size when the machine was saved, or before
	// Replace.
	ErrResized = errors.New("disk has another size than it had")
)

// Options say how a disk is.
type Options struct {
	ReadOnly bool
	ID       string // what the guest sees as its serial number, 20 bytes at the most
	Queues   int    // 1 to MaxQueues
	Limit    rate.Limit
}

// Image is a disk that is no raw file. Its methods may be called side by side.
type Image interface {
	Size() int64
	// ReadVec fills buffers, one behind the other, from an offset on, or fails. It
	// may use the list up.
	ReadVec(bufs [][]byte, off uint64) error
	io.Closer
}

// Writable is an image that can be written to.
type Writable interface {
	Image
	// WriteVec writes buffers, as ReadVec reads them.
	WriteVec(bufs [][]byte, off uint64) error
	// Zero makes bytes zeros.
	Zero(off, n uint64) error
	// Flush returns when all that was written before is on the medium.
	Flush() error
}

// Device is a disk.
type Device struct {
	file    *os.File // nil: there is always an image
	image   Image    // nil: the file is the disk
	medium  Writable // the image, unless it is read-only
	opt     Options
	sectors uint64
	through bool // writes go through to the medium
	limit   *rate.Bucket
	engine  engine
}

// engine does the input and output of a disk.
type engine interface {
	start(queues []*virtio.Queue)
	// stop returns when nothing is under way. The queues are over.
	stop()
	close() error
}

// Open makes a disk of a file, which it takes over. errors.Is: ErrFile,
// ErrReadOnly.
func Open(f *os.File, o Options) (*Device, error) {
	d := &Device{file: f, opt: o}
	d.SetLimit(o.Limit)
	if err := d.open(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return d, nil
}

// OpenImage makes a disk of an image, which it takes over. errors.Is: ErrFile, ErrReadOnly.
func OpenImage(i Image, o Options) (*Device, error) {
	d := &Device{image: i, opt: o, sectors: uint64(i.Size()) / sector}
	d.SetLimit(o.Limit)
	d.opt.Queues = min(max(o.Queues, 1), MaxQueues)
	if !o.ReadOnly {
		d.medium, _ = i.(Writable)
	}
	switch {
	case !o.ReadOnly && d.medium == nil:
		return nil, errors.Join(ErrReadOnly, i.Close())
	case d.sectors == 0:
		return nil, errors.Join(ErrFile, i.Close())
	}
	return d, nil
}

func (d *Device) open() error {
	fd := int(d.file.Fd())
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFREG && kind != unix.S_IFBLK {
		return ErrFile
	}
	size, err := unix.Seek(fd, 0, unix.SEEK_END)
	if err != nil {
		return os.NewSyscallError("lseek", err)
	}
	if d.sectors = uint64(size) / sector; d.sectors == 0 {
		return ErrFile
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	if !d.opt.ReadOnly && flags&unix.O_ACCMODE != unix.O_RDWR {
		return ErrReadOnly
	}
	d.opt.Queues = min(max(d.opt.Queues, 1), MaxQueues)
	return nil
}

// OpenLayered makes a disk of an image above a file which may be the disk one day; see
// Replace. It takes the image over, whose file it is. errors.Is: ErrFile, ErrReadOnly.
func OpenLayered(i Writable, bottom *os.File, o Options) (*Device, error) {
	d, err := OpenImage(i, o)
	if err == nil {
		d.file = bottom
	}
	return d, err
}

// ReadOnly reports whether the disk is only read.
func (d *Device) ReadOnly() bool { return d.opt.ReadOnly }

// File is the file that is the disk, or that is below all that the image is made of; nil:
// there is none.
func (d *Device) File() *os.File { return d.file }

// Image is what the disk is made of; nil: the file.
func (d *Device) Image() Image { return d.image }

// Replace makes the disk of another image that has the same bytes, or with nil of the file
// alone. The device is not started, or settled. The image is taken over, and the one
// before is the caller's. errors.Is: ErrResized, with nothing done.
func (d *Device) Replace(i Writable) error {
	if i == nil {
		d.image, d.medium = nil, nil
		return nil
	}
	if uint64(i.Size())/sector != d.sectors {
		return ErrResized
	}
	d.image, d.medium = i, i
	return nil
}

// Flush returns when all that was written before is on the medium.
func (d *Device) Flush() error {
	switch {
	case d.opt.ReadOnly:
		return nil
	case d.medium != nil:
		return d.medium.Flush()
	}
	return os.NewSyscallError("fdatasync", unix.Fdatasync(int(d.file.Fd())))
}

// Attach chooses the engine by trying: what a kernel, its settings and a filter of
// system calls allow is known to nobody else. A ring is made for a file also when the
// disk has an image above it: later there are none to be had.
func (d *Device) Attach(bells []int) error {
	if d.file != nil {
		if e, err := newRings(d, bells); err == nil {
			d.engine = e
			return nil
		}
	}
	d.engine = newWorkers(d)
	return nil
}

// Kind is what the driver finds.
func (d *Device) Kind() virtio.Kind {
	features := uint64(featureSegMax | featureBlockSize | featureFlush | featureQueues)
	if d.opt.ReadOnly {
		features |= featureReadOnly
	} else {
		features |= featureDiscard | featureWriteZeroes
	}
	return virtio.Kind{Type: deviceType, Class: class, Features: features, Queues: d.opt.Queues, Size: queueSize}
}

// Config is what the driver reads.
func (d *Device) Config() []byte {
	b := make([]byte, cfgSize)
	order.PutUint64(b[cfgCapacity:], d.sectors)
	order.PutUint32(b[cfgSegMax:], maxSegs)
	order.PutUint32(b[cfgBlockSize:], sector)
	order.PutUint16(b[cfgQueues:], uint16(d.opt.Queues))
	if !d.opt.ReadOnly {
		order.PutUint32(b[cfgDiscardMax:], maxClear)
		order.PutUint32(b[cfgDiscardSegs:], 1)
		order.PutUint32(b[cfgDiscardAlign:], 4096/sector)
		order.PutUint32(b[cfgZeroesMax:], maxClear)
		order.PutUint32(b[cfgZeroesSegs:], 1)
		b[cfgZeroesUnmap] = 1
	}
	return b
}

// SetLimit bounds the requests of all queues together, and the bytes that they read and
// write. The device is not started. What is over the limit stays in the queues, so that
// nothing but what is under way has to be settled, reset or saved.
func (d *Device) SetLimit(l rate.Limit) {
	d.opt.Limit, d.limit = l, rate.NewBucket(l, time.Now)
}

// Limit is what was set.
func (d *Device) Limit() rate.Limit { return d.opt.Limit }

// Start serves the queues. Without a driver that flushes, every write is on the
// medium when it is done.
func (d *Device) Start(features uint64, queues []*virtio.Queue) {
	d.through = features&featureFlush == 0
	d.engine.start(queues)
}

// Stop settles all requests.
func (d *Device) Stop() { d.engine.stop() }

// Save writes how large the disk is, and flushes: the guest goes on as if what it wrote
// were there, and the host may lose its power before.
func (d *Device) Save(w *wire.Writer) error {
	w.U64(d.sectors)
	return d.Flush()
}

// Load sees that it still is. errors.Is: ErrResized.
func (d *Device) Load(r *wire.Reader) {
	if r.U64() != d.sectors {
		r.Fail(ErrResized)
	}
}

// Close lets go of the file or image.
func (d *Device) Close() error {
	var err error
	if d.engine != nil {
		err = d.engine.close()
	}
	if d.image != nil {
		return errors.Join(err, d.image.Close())
	}
	return errors.Join(err, d.file.Close())
}
