// SPDX-License-Identifier: Apache-2.0

package blk

import (
	"golang.org/x/sys/unix"

	"vmctl/monitor/virtio"
)

// Requests and how they end (virtio 1.2, 5.2.6).
const (
	typeIn          = 0
	typeOut         = 1
	typeFlush       = 4
	typeGetID       = 8
	typeDiscard     = 11
	typeWriteZeroes = 13

	statusOK          = 0
	statusError       = 1
	statusUnsupported = 2

	headerSize = 16
	rangeSize  = 16
	idSize     = 20
	flagUnmap  = 1 << 0

	maxTries = 100 // of an operation that the host puts off
)

// action is what a request asks of the file.
type action uint8

const (
	actNothing action = iota // it is answered already
	actRead
	actWrite
	actSync
	actAllocate
)

// request is one chain as a request. It is used again when it is done.
type request struct {
	q      *virtio.Queue
	chain  virtio.Chain
	status []byte // one byte of guest memory
	answer byte
	filled uint32 // bytes of guest memory, without the status

	do    action
	data  [][]byte // what is left to transfer
	off   uint64   // where in the file
	size  uint64   // bytes that are left
	mode  uint32   // of fallocate
	tries int
	iov   []unix.Iovec // data, as a ring takes it
	owner *pool
	next  *request // in the pool
}

// take cuts n bytes off the front of a list of buffers and copies them, as far as
// there are so many.
func take(list *[][]byte, dst []byte) (n int) {
	for n < len(dst) && len(*list) > 0 {
		b := &(*list)[0]
		c := copy(dst[n:], *b)
		n += c
		if *b = (*b)[c:]; len(*b) == 0 {
			*list = (*list)[1:]
		}
	}
	return n
}

// parse looks at a chain, and says what there is to do. A chain that is no request
// breaks the device: there is nowhere to answer to.
func (d *Device) parse(r *request) bool {
	in, out := r.chain.Read, r.chain.Write
	var head [headerSize]byte
	if take(&in, head[:]) != headerSize || len(out) == 0 {
		r.q.Fail(virtio.ErrRequest)
		return false
	}
	last := &out[len(out)-1]
	r.status = (*last)[len(*last)-1:]
	if *last = (*last)[:len(*last)-1]; len(*last) == 0 {
		out = out[:len(out)-1]
	}
	r.do, r.filled, r.data, r.size, r.tries = actNothing, 0, nil, 0, 0
	first := order.Uint64(head[8:])
	switch order.Uint32(head[:]) {
	case typeIn:
		r.answer = d.transfer(r, actRead, first, out)
		r.filled = uint32(r.size)
	case typeOut:
		r.answer = d.transfer(r, actWrite, first, in)
	case typeFlush:
		r.do, r.answer = actSync, statusOK
	case typeGetID:
		r.answer = d.id(r, out)
	case typeDiscard:
		r.answer = d.clear(r, in, unix.FALLOC_FL_PUNCH_HOLE, 0)
	case typeWriteZeroes:
		r.answer = d.clear(r, in, unix.FALLOC_FL_ZERO_RANGE, flagUnmap)
	default:
		r.answer = statusUnsupported
	}
	return true
}

// bytes is what a limit counts: data, and not what is made zeros or discarded.
func (r *request) bytes() uint64 {
	if r.do == actRead || r.do == actWrite {
		return r.size
	}
	return 0
}

// within reports whether there are so many bytes from a sector on.
func (d *Device) within(first, bytes uint64) bool {
	return bytes%sector == 0 && first <= d.sectors && bytes/sector <= d.sectors-first
}

func (d *Device) transfer(r *request, do action, first uint64, data [][]byte) byte {
	var size uint64
	for _, b := range data {
		size += uint64(len(b))
	}
	// A system call transfers less than 2 GiB.
	if do == actWrite && d.opt.ReadOnly || size == 0 || size > 1<<30 || !d.within(first, size) {
		return statusError
	}
	r.do, r.data, r.off, r.size = do, data, first*sector, size
	return statusOK
}

func (d *Device) id(r *request, data [][]byte) byte {
	var id [idSize]byte
	copy(id[:], d.opt.ID)
	for rest := id[:]; len(rest) > 0; {
		if len(data) == 0 {
			return statusError
		}
		n := copy(data[0], rest)
		rest, data, r.filled = rest[n:], data[1:], r.filled+uint32(n)
	}
	return statusOK
}

// clear discards, or fills with zeros, the one range that the data names.
func (d *Device) clear(r *request, data [][]byte, mode uint32, flags uint32) byte {
	var b [rangeSize]byte
	if d.opt.ReadOnly || take(&data, b[:]) != rangeSize || len(data) > 0 {
		return statusError
	}
	first, sectors, wish := order.Uint64(b[:]), order.Uint32(b[8:]), order.Uint32(b[12:])
	if wish&^flags != 0 {
		return statusUnsupported
	}
	bytes := uint64(sectors) * sector
	if sectors == 0 || sectors > maxClear || !d.within(first, bytes) {
		return statusError
	}
	if wish&flagUnmap != 0 {
		mode = unix.FALLOC_FL_PUNCH_HOLE
	}
	r.do, r.off, r.size, r.mode = actAllocate, first*sector, bytes, mode|unix.FALLOC_FL_KEEP_SIZE
	return statusOK
}

// done takes the result of what was done, and reports whether that is all. What
// was cut short goes on where it ended. Where writes go through to the medium, so
// do zeros, which takes a step of its own.
func (r *request) done(res int, errno unix.Errno, through bool) bool {
	switch {
	case (errno == unix.EINTR || errno == unix.EAGAIN) && r.tries < maxTries:
		r.tries++
		return false
	case errno == unix.EOPNOTSUPP && r.do == actAllocate:
		r.answer = statusUnsupported
		return true
	case errno != 0:
		r.fail()
		return true
	case r.do == actAllocate && through:
		r.do = actSync
		return false
	case r.do != actRead && r.do != actWrite:
		return true
	case res == 0: // the file is shorter than it was
		r.fail()
		return true
	}
	r.advance(uint64(res))
	return r.size == 0
}

func (r *request) fail() { r.answer, r.filled = statusError, 0 }

// advance leaves out what is done.
func (r *request) advance(n uint64) {
	r.off, r.size = r.off+n, r.size-min(n, r.size)
	for len(r.data) > 0 && n >= uint64(len(r.data[0])) {
		n -= uint64(len(r.data[0]))
		r.data = r.data[1:]
	}
	if len(r.data) > 0 {
		r.data[0] = r.data[0][n:]
	}
}

// finish answers the driver. It does not interrupt it.
func (r *request) finish() {
	r.status[0] = r.answer
	r.q.Push(r.chain.Head, r.filled+1)
}
