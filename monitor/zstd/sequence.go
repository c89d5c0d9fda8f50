// SPDX-License-Identifier: Apache-2.0

package zstd

import "math/bits"

const (
	maxLog    = 9 // of a table
	maxSymbol = 52
)

// table decodes symbols by finite states (4.1).
type table struct {
	log     int
	entries [1 << maxLog]entry
}

type entry struct {
	symbol, bits uint8
	base         uint16
}

// read takes the description of a table (4.1.1) and returns its size.
func (t *table) read(src []byte, most, symbols int) (used int, ok bool) {
	// Bits from the beginning on; behind the end they are 0.
	r, place := backward{b: src}, 0
	read := func(n int) (v int) {
		if place < 8*len(src) {
			v = int(r.at(place, n))
		}
		place += n
		return v
	}
	log := read(4) + 5
	if log > most {
		return 0, false
	}
	var counts [maxSymbol + 1]int16
	left, s := 1<<log, 0
	for left > 0 {
		if s > symbols || place > 8*len(src) {
			return 0, false
		}
		n := bits.Len(uint(left + 1))
		v, low := read(n), 1<<(n-1)-1
		short := 1<<n - 2 - left
		if v&low < short {
			place--
			v &= low
		} else if v > low {
			v -= short
		}
		counts[s] = int16(v - 1)
		left -= max(v-1, 1-v)
		s++
		for skip := 3; v == 1 && skip == 3; {
			if skip = read(2); s+skip > symbols+1 {
				return 0, false
			}
			s += skip
		}
	}
	used = (place + 7) / 8
	if left < 0 || used > len(src) {
		return 0, false
	}
	return used, t.build(log, counts[:s])
}

// build spreads the symbols over the states, each so often as its count says; one of -1
// has the least of all chances (4.1.1).
func (t *table) build(log int, counts []int16) bool {
	size := 1 << log
	var next [maxSymbol + 1]uint16
	high := size
	for s, c := range counts {
		if c == -1 {
			if high == 0 {
				return false
			}
			high--
			t.entries[high].symbol, next[s] = uint8(s), 1
		}
	}
	at := 0
	for s, c := range counts {
		if c <= 0 {
			continue
		}
		next[s] = uint16(c)
		for range c {
			t.entries[at].symbol = uint8(s)
			for at = (at + size>>1 + size>>3 + 3) & (size - 1); at >= high && high > 0; {
				at = (at + size>>1 + size>>3 + 3) & (size - 1)
			}
		}
	}
	if at != 0 {
		return false
	}
	for i := range t.entries[:size] {
		e := &t.entries[i]
		n := next[e.symbol]
		next[e.symbol]++
		e.bits = uint8(log - (bits.Len16(n) - 1))
		e.base = n<<e.bits - uint16(size)
	}
	t.log = log
	return true
}

// sequenceTable is the table of one field of sequences, for as long as a block says that
// it goes on.
type sequenceTable struct {
	table
	ok bool
}

// field is what one of the three fields of a sequence is (3.1.1.3.2.1).
type field struct {
	log      int // at the most
	symbols  int // the last one
	usualLog int
	usual    []int16 // counts of the predefined table
}

const (
	literalLengths = iota
	offsets
	matchLengths
)

var fields = [3]field{
	literalLengths: {9, 35, 6, []int16{4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1,
		-1, -1, -1, -1}},
	offsets: {8, 31, 5, []int16{1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1}},
	matchLengths: {9, 52, 6, []int16{1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
		1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1}},
}

// What codes of lengths stand for: a number, and so many more bits (3.1.1.3.2.1.1).
var (
	literalBase = [36]uint32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 20, 22, 24, 28, 32, 40, 48, 64, 128, 256,
		512, 1024, 2048, 4096, 8192, 16384, 32768, 65536}
	literalBits = [36]uint8{16: 1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	matchBase   = [53]uint32{3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30,
		31, 32, 33, 34, 35, 37, 39, 41, 43, 47, 51, 59, 67, 83, 99, 131, 259, 515, 1027, 2051, 4099, 8195, 16387, 32771, 65539}
	matchBits = [53]uint8{32: 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
)

// sequences is 3.1.1.3.2: literals, and copies of what was made before them.
func (d *Decoder) sequences(src []byte) bool {
	end := d.n + maxBlock
	if len(src) == 0 {
		return false
	}
	count, head := int(src[0]), 1
	switch {
	case count == 0:
		return len(src) == 1 && d.copyLiterals(len(d.lits), end)
	case count == 255:
		head = 3
	case count >= 128:
		head = 2
	}
	if len(src) < head+1 {
		return false
	}
	switch head {
	case 2:
		count = (count-128)<<8 | int(src[1])
	case 3:
		count = int(order.Uint16(src[1:])) + 0x7f00
	}
	modes := src[head]
	if modes&3 != 0 {
		return false
	}
	src = src[head+1:]
	for f := range fields {
		used, ok := d.seqs[f].choose(&fields[f], modes>>(6-2*f)&3, src)
		if !ok {
			return false
		}
		src = src[used:]
	}
	r, ok := newBackward(src)
	if !ok {
		return false
	}
	return d.execute(&r, count, end) && d.copyLiterals(len(d.lits), end)
}

// choose takes the table that a block says.
func (t *sequenceTable) choose(f *field, mode uint8, src []byte) (used int, ok bool) {
	switch mode {
	case 0:
		ok = t.build(f.usualLog, f.usual)
	case 1:
		if len(src) > 0 && int(src[0]) <= f.symbols {
			t.log, t.entries[0] = 0, entry{symbol: src[0]}
			used, ok = 1, true
		}
	case 2:
		used, ok = t.read(src, f.log, f.symbols)
	default:
		ok = t.ok
	}
	t.ok = ok
	return used, ok
}

// execute makes what the sequences say, up to an end.
func (d *Decoder) execute(r *backward, count, end int) bool {
	var states [3]int
	for f := range states {
		states[f] = int(r.read(d.seqs[f].log))
	}
	for i := range count {
		lit := d.seqs[literalLengths].entries[states[literalLengths]]
		off := d.seqs[offsets].entries[states[offsets]]
		match := d.seqs[matchLengths].entries[states[matchLengths]]
		value := uint64(1)<<off.symbol + r.read(int(off.symbol))
		size := int(matchBase[match.symbol]) + int(r.read(int(matchBits[match.symbol])))
		n := int(literalBase[lit.symbol]) + int(r.read(int(literalBits[lit.symbol])))
		if i < count-1 {
			states[literalLengths] = int(lit.base) + int(r.read(int(lit.bits)))
			states[matchLengths] = int(match.base) + int(r.read(int(match.bits)))
			states[offsets] = int(off.base) + int(r.read(int(off.bits)))
		}
		if r.left < 0 || !d.copyLiterals(n, end) || !d.copyMatch(d.offset(value, n == 0), size, end) {
			return false
		}
	}
	return r.left == 0
}

// offset is how far back a sequence copies from (3.1.1.5). The first three values stand
// for offsets that were used last; without literals, for others of them.
func (d *Decoder) offset(value uint64, noLiterals bool) uint64 {
	if value > 3 {
		d.last = [3]uint32{uint32(value - 3), d.last[0], d.last[1]}
		return value - 3
	}
	if noLiterals {
		value++
	}
	l := d.last
	switch value {
	case 2:
		d.last = [3]uint32{l[1], l[0], l[2]}
	case 3:
		d.last = [3]uint32{l[2], l[0], l[1]}
	case 4:
		d.last = [3]uint32{l[0] - 1, l[0], l[1]}
	}
	return uint64(d.last[0])
}

// copyLiterals takes n literals.
func (d *Decoder) copyLiterals(n, end int) bool {
	if n > len(d.lits) || d.n+n > min(end, len(d.dst)) {
		return false
	}
	copy(d.dst[d.n:], d.lits[:n])
	d.n, d.lits = d.n+n, d.lits[n:]
	return true
}

// copyMatch repeats n bytes, which may be more than there are behind the offset.
func (d *Decoder) copyMatch(offset uint64, n, end int) bool {
	if offset == 0 || offset > uint64(d.n) || d.n+n > min(end, len(d.dst)) {
		return false
	}
	from := d.n - int(offset)
	for n > 0 {
		c := copy(d.dst[d.n:d.n+n], d.dst[from:d.n])
		d.n, n = d.n+c, n-c
	}
	return true
}
