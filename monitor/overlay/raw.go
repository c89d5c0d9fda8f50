// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"os"

	"vmctl/monitor/iov"
)

// Raw is a file that is the disk itself. Its methods may be called side by side.
type Raw struct {
	file store
	end  uint64
}

// OpenRaw makes a disk of a file. Who closes one closes the other.
func OpenRaw(f *os.File) (*Raw, error) { return openRaw(&osFile{f}) }

func openRaw(f store) (*Raw, error) {
	end, err := f.size()
	return &Raw{f, end}, err
}

// Size is the size of the disk in bytes.
func (r *Raw) Size() int64 { return int64(r.end) }

func (r *Raw) within(off, n uint64) bool { return off <= r.end && n <= r.end-off }

// ReadVec fills buffers, as Disk's does.
func (r *Raw) ReadVec(bufs [][]byte, off uint64) error {
	if !r.within(off, iov.Len(bufs)) {
		return ErrBounds
	}
	return r.file.read(bufs, off)
}

// WriteVec writes buffers, as Disk's does.
func (r *Raw) WriteVec(bufs [][]byte, off uint64) error {
	if !r.within(off, iov.Len(bufs)) {
		return ErrBounds
	}
	return r.file.write(bufs, off)
}

// Zero makes bytes zeros, as Disk's does.
func (r *Raw) Zero(off, n uint64) error {
	if !r.within(off, n) {
		return ErrBounds
	}
	return r.file.zero(off, n)
}

// Flush returns when all that was written before is on the medium.
func (r *Raw) Flush() error { return r.file.sync() }

// Close lets go of the file.
func (r *Raw) Close() error { return r.file.Close() }
