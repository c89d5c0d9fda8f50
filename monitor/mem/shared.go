// SPDX-License-Identifier: Apache-2.0

package mem

import (
	"encoding/binary"
	"errors"
	"sync/atomic"
	"unsafe"
)

// ErrAlign is a shared piece of RAM that does not begin where it must.
var ErrAlign = errors.New("address is not aligned")

// Shared is a piece of RAM by which guest and monitor talk without locks: each
// changes words that the other reads. Loads acquire and stores release what was
// written before; a store is also ordered before the loads that follow it.
//
// The processor has no half words that Go could change atomically, so the word
// around one is: bytes beside it are read, and written back as they are.
type Shared struct{ b []byte }

// Share returns the n bytes of RAM at a guest-physical address that is a multiple
// of align, which is 2 at least. errors.Is: ErrRange, ErrAlign.
func (m *Memory) Share(addr, n, align uint64) (Shared, error) {
	if addr%align != 0 {
		return Shared{}, ErrAlign
	}
	b, err := m.At(addr, n)
	return Shared{b}, err
}

// HostAddr is where the piece lies in this process.
func (s Shared) HostAddr() uint64 { return HostAddr(s.b) }

// word is the aligned word around the half word at off, and how far up that is.
func (s Shared) word(off int) (p *uint32, shift uint) {
	at := unsafe.Pointer(&s.b[off : off+2][0])
	high := uintptr(at) & 2
	return (*uint32)(unsafe.Add(at, -int(high))), uint(high * 8)
}

// Load16 reads the half word at an even offset.
func (s Shared) Load16(off int) uint16 {
	p, shift := s.word(off)
	return uint16(atomic.LoadUint32(p) >> shift)
}

// Store16 writes the half word at an even offset, which nobody else writes. Who
// reads it meanwhile may see bits of the old and of the new one together.
func (s Shared) Store16(off int, v uint16) {
	p, shift := s.word(off)
	old := uint16(atomic.LoadUint32(p) >> shift)
	atomic.OrUint32(p, uint32(v&^old)<<shift)
	atomic.AndUint32(p, ^(uint32(old&^v) << shift))
}

// Store32 writes the word at an offset that is a multiple of 4.
func (s Shared) Store32(off int, v uint32) {
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&s.b[off : off+4][0])), v)
}

// Put64 writes 8 bytes that nobody reads before a later store says so.
func (s Shared) Put64(off int, v uint64) { binary.LittleEndian.PutUint64(s.b[off:], v) }
