// SPDX-License-Identifier: Apache-2.0

// Package zstd unpacks one frame of Zstandard (RFC 8878) whose size is known before:
// there is no window beside what was unpacked, no dictionary, and no stream. Checksums
// are passed over. The bytes are a stranger's: whatever they are, unpacking ends, and
// writes to nothing but the destination.
//
// It is here because of what a monitor may hold, 5 MiB. With the library of the field
// (klauspost/compress 1.20.3, which brings log, fmt and math/big along) one held 316 KiB
// more than with this. That library is what the tests compare it with.
package zstd

import (
	"encoding/binary"
	"errors"
)

// ErrCorrupt is a frame that is none, or is not of that size.
var ErrCorrupt = errors.New("zstd frame is damaged")

const (
	magic     = 0xfd2fb528
	maxBlock  = 128 << 10 // bytes that a block makes
	blockHead = 3
)

var order = binary.LittleEndian

// Decoder has the tables of a frame, about 14 KiB, and up to 128 KiB of literals. It may
// be used again, by one at a time.
type Decoder struct {
	dst  []byte
	n    int    // bytes of dst that are made
	lits []byte // of the block, that are left
	keep []byte // where they are
	huff huffman
	seqs [3]sequenceTable // of literal lengths, offsets, match lengths
	last [3]uint32        // offsets that may be repeated
	fse  table            // for the weights of a Huffman code
}

// Decode fills dst with what the frame at the beginning of src holds. What comes behind
// the frame is not looked at. errors.Is: ErrCorrupt.
func (d *Decoder) Decode(dst, src []byte) error {
	d.dst, d.n = dst, 0
	d.huff.bits, d.last = 0, [3]uint32{1, 4, 8}
	for i := range d.seqs {
		d.seqs[i].ok = false
	}
	ok := d.frame(src)
	d.dst = nil
	if !ok || d.n < len(dst) {
		return ErrCorrupt
	}
	return nil
}

// frame is 3.1.1.
func (d *Decoder) frame(src []byte) bool {
	head := frameHead(src, len(d.dst))
	if head == 0 {
		return false
	}
	for src = src[head:]; len(src) >= blockHead; {
		head := int(src[0]) | int(src[1])<<8 | int(src[2])<<16
		last, kind, size := head&1 != 0, head>>1&3, head>>3
		src = src[blockHead:]
		room := d.dst[d.n:]
		if size > maxBlock {
			return false
		}
		stored := size
		if kind == 1 {
			stored = 1
		}
		if stored > len(src) {
			return false
		}
		switch kind {
		case 0: // as it is
			if size > len(room) {
				return false
			}
			d.n += copy(room, src[:size])
		case 1: // one byte, so many times
			if size > len(room) {
				return false
			}
			for i := range room[:size] {
				room[i] = src[0]
			}
			d.n += size
		case 2:
			if !d.block(src[:size]) {
				return false
			}
		default:
			return false
		}
		if src = src[stored:]; last {
			return true
		}
	}
	return false
}

// frameHead is the size of a frame's header (3.1.1.1), or 0.
func frameHead(src []byte, size int) int {
	if len(src) < 5 || order.Uint32(src) != magic {
		return 0
	}
	flags := src[4]
	single := flags>>5&1 != 0
	at := 5
	if !single {
		at++ // the size of a window
	}
	name := [4]int{0, 1, 2, 4}[flags&3] // of a dictionary
	n := [4]int{0, 2, 4, 8}[flags>>6]
	if n == 0 && single {
		n = 1
	}
	if flags&8 != 0 || len(src) < at+name+n {
		return 0
	}
	for _, b := range src[at : at+name] {
		if b != 0 { // it needs a dictionary
			return 0
		}
	}
	at += name
	var content uint64
	switch n {
	case 0:
		return at
	case 1:
		content = uint64(src[at])
	case 2:
		content = uint64(order.Uint16(src[at:])) + 256
	case 4:
		content = uint64(order.Uint32(src[at:]))
	case 8:
		content = order.Uint64(src[at:])
	}
	if content != uint64(size) {
		return 0
	}
	return at + n
}

// block is a compressed block (3.1.1.3).
func (d *Decoder) block(src []byte) bool {
	rest, ok := d.literals(src)
	return ok && d.sequences(rest)
}

// literals is 3.1.1.3.1.
func (d *Decoder) literals(src []byte) (rest []byte, ok bool) {
	if len(src) == 0 {
		return nil, false
	}
	var head [8]byte
	copy(head[:], src)
	v := order.Uint64(head[:])
	kind, format := v&3, v>>2&3
	if kind < 2 {
		size, n := int(v>>3&31), 1
		switch format {
		case 1:
			size, n = int(v>>4&(1<<12-1)), 2
		case 3:
			size, n = int(v>>4&(1<<20-1)), 3
		}
		stored := size
		if kind == 1 {
			stored = 1
		}
		if size > maxBlock || len(src) < n+stored {
			return nil, false
		}
		d.literalRoom(size)
		if kind == 0 {
			copy(d.lits, src[n:])
		} else {
			for i := range d.lits {
				d.lits[i] = src[n]
			}
		}
		return src[n+stored:], true
	}
	n, width := 3, 10
	if format > 1 {
		n, width = int(format)+2, 14+4*(int(format)-2)
	}
	size, stored := int(v>>4&(1<<width-1)), int(v>>(4+width)&(1<<width-1))
	if size > maxBlock || len(src) < n+stored {
		return nil, false
	}
	packed, rest := src[n:n+stored], src[n+stored:]
	if kind == 2 {
		used, ok := d.huff.read(packed, &d.fse)
		if !ok {
			return nil, false
		}
		packed = packed[used:]
	}
	if d.huff.bits == 0 { // none before that could be used again
		return nil, false
	}
	d.literalRoom(size)
	if format == 0 {
		return rest, d.huff.decode(d.lits, packed)
	}
	return rest, d.huff.decodeFour(d.lits, packed)
}

func (d *Decoder) literalRoom(n int) {
	if len(d.keep) < n {
		d.keep = make([]byte, max(n, min(maxBlock, len(d.dst))))
	}
	d.lits = d.keep[:n]
}

// backward reads bits from the end of bytes to their beginning (4.1).
type backward struct {
	b    []byte
	left int // bits; below 0: zeros were read that are not there
}

func newBackward(b []byte) (backward, bool) {
	if len(b) == 0 || b[len(b)-1] == 0 {
		return backward{}, false
	}
	left := len(b) * 8
	for last := b[len(b)-1]; ; last <<= 1 { // the first bit that is set begins it
		left--
		if last&0x80 != 0 {
			return backward{b, left}, true
		}
	}
}

// at returns n bits, 32 at the most, from a place on.
func (r *backward) at(place, n int) uint64 {
	if place < 0 {
		if n+place <= 0 {
			return 0
		}
		return r.at(0, n+place) << -place
	}
	i := place >> 3
	var v uint64
	if i+8 <= len(r.b) {
		v = order.Uint64(r.b[i:])
	} else {
		for k := len(r.b) - 1; k >= i; k-- {
			v = v<<8 | uint64(r.b[k])
		}
	}
	return v >> (place & 7) & (1<<n - 1)
}

func (r *backward) read(n int) uint64 {
	r.left -= n
	return r.at(r.left, n)
}
