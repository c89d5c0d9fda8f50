// SPDX-License-Identifier: Apache-2.0

package zstd

import "math/bits"

const maxHuffmanBits = 11

// huffman is a Huffman code (4.2).
type huffman struct {
	bits  int // of the longest code; 0: there is none
	table [1 << maxHuffmanBits]huffmanEntry
}

type huffmanEntry struct{ symbol, bits uint8 }

// read takes the description of a code (4.2.1) and returns its size.
func (h *huffman) read(src []byte, fse *table) (used int, ok bool) {
	h.bits = 0
	if len(src) == 0 {
		return 0, false
	}
	var weights [256]uint8
	n, head := 0, int(src[0])
	used = 1 + head
	if head >= 128 {
		n = head - 127
		used = 1 + (n+1)/2
		if len(src) < used {
			return 0, false
		}
		for i := range n {
			weights[i] = src[1+i/2] >> (4 * (1 - i&1)) & 15
		}
	} else {
		if len(src) < used {
			return 0, false
		}
		if n, ok = readWeights(weights[:255], src[1:used], fse); !ok {
			return 0, false
		}
	}
	return used, h.build(&weights, n)
}

// readWeights takes weights that are packed by two states of one table.
func readWeights(weights, src []byte, fse *table) (n int, ok bool) {
	const maxLog, maxSymbol = 6, maxHuffmanBits + 1
	used, ok := fse.read(src, maxLog, maxSymbol)
	if !ok {
		return 0, false
	}
	r, ok := newBackward(src[used:])
	if !ok {
		return 0, false
	}
	states := [2]int{int(r.read(fse.log)), int(r.read(fse.log))}
	if r.left < 0 {
		return 0, false
	}
	for i := 0; n < len(weights); i ^= 1 {
		e := fse.entries[states[i]]
		weights[n] = e.symbol
		n++
		states[i] = int(e.base) + int(r.read(int(e.bits)))
		if r.left < 0 { // the other state has the last one
			if n == len(weights) {
				return 0, false
			}
			weights[n] = fse.entries[states[i^1]].symbol
			return n + 1, true
		}
	}
	return 0, false
}

// build makes the table. The weight of the last symbol is not written: it is what is
// left to make the sum a power of two.
func (h *huffman) build(weights *[256]uint8, n int) bool {
	sum := 0
	for _, w := range weights[:n] {
		if w > maxHuffmanBits {
			return false
		}
		sum += 1 << w >> 1
	}
	if sum == 0 || n > 255 {
		return false
	}
	longest := bits.Len(uint(sum))
	left := 1<<longest - sum
	if longest > maxHuffmanBits || left&(left-1) != 0 {
		return false
	}
	weights[n] = uint8(bits.Len(uint(left)))
	at := 0
	for w := 1; w <= longest; w++ {
		for s, v := range weights[:n+1] {
			if int(v) != w {
				continue
			}
			for range 1 << w >> 1 {
				h.table[at] = huffmanEntry{uint8(s), uint8(longest + 1 - w)}
				at++
			}
		}
	}
	h.bits = longest
	return at == 1<<longest
}

// decode fills dst from one stream.
func (h *huffman) decode(dst, src []byte) bool {
	r, ok := newBackward(src)
	if !ok {
		return false
	}
	for i := range dst {
		e := h.table[r.at(r.left-h.bits, h.bits)]
		dst[i] = e.symbol
		r.left -= int(e.bits)
	}
	return r.left == 0
}

// decodeFour fills dst from four streams, of which each has a quarter (4.2.2).
func (h *huffman) decodeFour(dst, src []byte) bool {
	const heads = 6
	part := (len(dst) + 3) / 4
	if len(src) < heads || 3*part > len(dst) {
		return false
	}
	sizes, src := src[:heads], src[heads:]
	for i := range 3 {
		size := int(order.Uint16(sizes[2*i:]))
		if size > len(src) || !h.decode(dst[:part], src[:size]) {
			return false
		}
		dst, src = dst[part:], src[size:]
	}
	return h.decode(dst, src)
}
