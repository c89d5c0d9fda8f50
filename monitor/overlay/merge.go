// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"errors"
	"slices"
	"sync/atomic"

	"vmctl/monitor/iov"
)

var (
	// ErrLower is an overlay above what cannot be written to, or is smaller.
	ErrLower = errors.New("what is behind the overlay cannot take what is in it")
	// ErrAborted is a merge that was told to end.
	ErrAborted = errors.New("merge was aborted")
)

// Lower is a disk behind an overlay that can be written to.
type Lower interface {
	Base
	WriteVec(bufs [][]byte, off uint64) error
	Zero(off, n uint64) error
	Flush() error
}

// Merge is an overlay while what is in it is written down into the disk behind it. It is
// used in the overlay's place, and takes no more memory than a cluster.
//
// No bit of the overlay is set any more: a write to a cluster that the overlay has goes
// to both, any other to the disk behind alone. So at any time the overlay above the disk
// behind has all that was written, whatever part of the clusters was copied: a merge
// that is cut short, by a power cut or by Abort, loses nothing and can begin anew. And
// when all are copied and were flushed, so has the disk behind by itself; from then on
// either of the two may be opened after a power cut, until Finish leaves the overlay.
//
// (A guest that changes a buffer while it is being written finds the old or the new there
// afterwards, as with any disk, and may find the other one after Finish.)
type Merge struct {
	top     *Disk
	low     Lower
	total   uint64
	done    atomic.Uint64 // clusters
	aborted atomic.Bool
	copied  atomic.Bool           // all is, and the disk behind may be used by itself
	fault   atomic.Pointer[error] // of the disk behind, which lacks what it should have
}

// NewMerge begins the merge of an overlay that nobody uses at this moment. errors.Is:
// ErrLower.
func NewMerge(top *Disk) (*Merge, error) {
	low, ok := top.low.(Lower)
	if !ok || low.Size() < top.Size() {
		return nil, ErrLower
	}
	m := &Merge{top: top, low: low}
	for c := range top.clusters {
		if top.has(c) {
			m.total++
		}
	}
	return m, nil
}

// Run copies all there is to copy, and makes sure of it; the disk is used meanwhile. It is
// called once. errors.Is: ErrAborted, and what reading and writing fails with.
func (m *Merge) Run() error {
	buf := make([]byte, m.top.cluster())
	for c := range m.top.clusters {
		switch {
		case m.aborted.Load():
			return ErrAborted
		case m.fault.Load() != nil:
			return *m.fault.Load()
		case !m.top.has(c):
			continue
		}
		if err := m.copy(c, buf); err != nil {
			return err
		}
		m.done.Add(1)
	}
	if err := m.Flush(); err != nil {
		return err
	}
	m.copied.Store(true)
	if err := m.fault.Load(); err != nil { // see behind
		return *err
	}
	return nil
}

// Abort lets Run end as soon as it can.
func (m *Merge) Abort() { m.aborted.Store(true) }

// Progress is how much is copied, and of how much, in bytes of whole clusters.
func (m *Merge) Progress() (done, total uint64) {
	return m.done.Load() << m.top.bits, m.total << m.top.bits
}

func (m *Merge) copy(c uint64, buf []byte) error {
	defer m.lock(c)()
	off := c << m.top.bits
	buf = buf[:min(uint64(len(buf)), m.top.size-off)]
	if err := m.top.file.read([][]byte{buf}, m.top.data+off); err != nil {
		return err
	}
	if iov.IsZero(buf) {
		return m.low.Zero(off, uint64(len(buf)))
	}
	return m.low.WriteVec([][]byte{buf}, off)
}

// lock keeps a cluster that is in both from being changed by two at a time, who could
// leave two different ones.
func (m *Merge) lock(c uint64) (unlock func()) {
	mu := &m.top.moving[c%stripes]
	mu.Lock()
	return mu.Unlock
}

// Finish ends a merge whose Run returned nil, and returns the disk behind, which has all.
// The overlay is closed. Nobody uses the disk at this moment.
func (m *Merge) Finish() (Lower, error) { return m.low, m.top.file.Close() }

// Leave ends any merge whose Run returned, and returns the overlay, which goes on above
// the disk behind. Nobody uses the disk at this moment. After an error, of the flush that
// this takes, the merge stays in use.
func (m *Merge) Leave() (*Disk, error) {
	// The overlay's own flush is none for what went past it.
	if err := m.low.Flush(); err != nil {
		return nil, err
	}
	return m.top, nil
}

// Size is the size of the disk in bytes.
func (m *Merge) Size() int64 { return m.top.Size() }

// ReadVec fills buffers, as Disk's does.
func (m *Merge) ReadVec(bufs [][]byte, off uint64) error { return m.top.ReadVec(bufs, off) }

// WriteVec writes buffers, as Disk's does.
func (m *Merge) WriteVec(bufs [][]byte, off uint64) error {
	return m.each(off, iov.Len(bufs), func(off, part uint64, has bool) error {
		list := iov.Take(&bufs, part)
		if has {
			if err := m.top.file.write(slices.Clone(list), m.top.data+off); err != nil {
				return err
			}
			return m.behind(m.low.WriteVec(list, off))
		}
		return m.low.WriteVec(list, off)
	})
}

// Zero makes bytes zeros, as Disk's does.
func (m *Merge) Zero(off, n uint64) error {
	return m.each(off, n, func(off, part uint64, has bool) error {
		if has {
			if err := m.top.file.zero(m.top.data+off, part); err != nil {
				return err
			}
			return m.behind(m.low.Zero(off, part))
		}
		return m.low.Zero(off, part)
	})
}

// behind is what a change comes to that the overlay has, and the disk behind may have
// refused, as it is full perhaps. That is the merge's end and not the guest's trouble,
// unless the disk behind may be used by itself already: either this sees that, or Run
// sees the fault.
func (m *Merge) behind(err error) error {
	if err == nil {
		return nil
	}
	m.fault.CompareAndSwap(nil, &err)
	if m.copied.Load() {
		return err
	}
	return nil
}

// each changes bytes: by clusters those that the overlay has.
func (m *Merge) each(off, n uint64, change func(off, n uint64, has bool) error) error {
	if !m.top.within(off, n) {
		return ErrBounds
	}
	for n > 0 {
		c := off >> m.top.bits
		part, has := min(n, (c+1)<<m.top.bits-off), m.top.has(c)
		unlock := func() {}
		if has { // one at a time: to look for the run's end each time is its square
			unlock = m.lock(c)
		} else {
			part, _ = m.top.run(off, n)
		}
		err := change(off, part, has)
		unlock()
		if err != nil {
			return err
		}
		off, n = off+part, n-part
	}
	return nil
}

// Flush returns when all that was written before is on the medium: in both files, as
// either of them may be what is left.
func (m *Merge) Flush() error { return errors.Join(m.low.Flush(), m.top.Flush()) }

// Close lets go of all files.
func (m *Merge) Close() error { return m.top.Close() }
