// SPDX-License-Identifier: Apache-2.0

package acpi

import "encoding/binary"

// The few terms of AML (ACPI 6.5, chapter 20) that our DSDT is made of. Each
// function returns the encoding of one term.

// name encodes a single name segment of four characters.
func name(s string) []byte { return []byte(s) }

// root encodes a name segment at the root of the name space.
func root(s string) []byte { return append([]byte{'\\'}, s...) }

// from encodes a name of two segments, from the root on.
func from(scope, s string) []byte { return join([]byte{'\\', 0x2e}, name(scope), name(s)) }

// path encodes a name of three segments, from the root on.
func path(a, b, c string) []byte { return join([]byte{'\\', 0x2f, 3}, name(a), name(b), name(c)) }

// join puts terms one behind the other.
func join(terms ...[]byte) []byte {
	var out []byte
	for _, t := range terms {
		out = append(out, t...)
	}
	return out
}

// pkgLength encodes the length of what follows, itself included (20.2.4).
func pkgLength(n int) []byte {
	switch {
	case n+1 < 1<<6:
		return []byte{byte(n + 1)}
	case n+2 < 1<<12:
		n += 2
		return []byte{1<<6 | byte(n&15), byte(n >> 4)}
	default:
		n += 3
		return []byte{2<<6 | byte(n&15), byte(n >> 4), byte(n >> 12)}
	}
}

func scope(at []byte, body ...[]byte) []byte {
	inner := join(at, join(body...))
	return join([]byte{0x10}, pkgLength(len(inner)), inner)
}

func device(id string, body ...[]byte) []byte {
	inner := join(name(id), join(body...))
	return join([]byte{0x5b, 0x82}, pkgLength(len(inner)), inner)
}

// method encodes a serialized method of args arguments.
func method(id string, args byte, body ...[]byte) []byte {
	const serialized = 1 << 3
	inner := join(name(id), []byte{args | serialized}, join(body...))
	return join([]byte{0x14}, pkgLength(len(inner)), inner)
}

// named encodes Name(id, value).
func named(id string, value []byte) []byte { return join([]byte{0x08}, name(id), value) }

func integer(v uint32) []byte {
	switch {
	case v <= 1:
		return []byte{byte(v)}
	case v <= 0xff:
		return []byte{0x0a, byte(v)}
	case v <= 0xffff:
		return binary.LittleEndian.AppendUint16([]byte{0x0b}, uint16(v))
	default:
		return binary.LittleEndian.AppendUint32([]byte{0x0c}, v)
	}
}

// local is a variable of the method.
func local(n byte) []byte { return []byte{0x60 + n} }

func store(value, to []byte) []byte { return join([]byte{0x70}, value, to) }

func and(a, b []byte) []byte { return join([]byte{0x7b}, a, b, []byte{0}) }

// when encodes If, without Else.
func when(condition []byte, body ...[]byte) []byte {
	inner := join(condition, join(body...))
	return join([]byte{0xa0}, pkgLength(len(inner)), inner)
}

// portRegion makes n I/O ports known by a name.
func portRegion(id string, base uint16, n byte) []byte {
	const systemIO = 1
	return join([]byte{0x5b, 0x80}, name(id), []byte{systemIO}, integer(uint32(base)), integer(uint32(n)))
}

// unit is a field of a region: its name and its bits, 63 at most.
type unit struct {
	id   string
	bits byte
}

// field names what is in a region, which is accessed as wide as its first unit is.
func field(region string, units ...unit) []byte {
	access := map[byte]byte{8: 1, 16: 2, 32: 3}[units[0].bits]
	inner := join(name(region), []byte{access})
	for _, u := range units {
		inner = join(inner, name(u.id), []byte{u.bits})
	}
	return join([]byte{0x5b, 0x81}, pkgLength(len(inner)), inner)
}

func text(s string) []byte { return join([]byte{0x0d}, []byte(s), []byte{0}) }

func pkg(elements ...[]byte) []byte {
	inner := join([]byte{byte(len(elements))}, join(elements...))
	return join([]byte{0x12}, pkgLength(len(inner)), inner)
}

func notify(object []byte, value uint32) []byte { return join([]byte{0x86}, object, integer(value)) }

// eisaID packs an identifier such as PNP0501: three letters and four
// hexadecimal digits.
func eisaID(s string) []byte {
	digit := func(c byte) uint32 {
		if c >= 'A' {
			return uint32(c-'A') + 10
		}
		return uint32(c - '0')
	}
	v := uint32(s[0]-'@')<<26 | uint32(s[1]-'@')<<21 | uint32(s[2]-'@')<<16
	v |= digit(s[3])<<12 | digit(s[4])<<8 | digit(s[5])<<4 | digit(s[6])
	return binary.BigEndian.AppendUint32([]byte{0x0c}, v)
}

// resources encodes a resource template as a buffer.
func resources(descriptors ...[]byte) []byte {
	data := join(join(descriptors...), []byte{0x79, 0}) // end tag; 0: no checksum
	inner := join(integer(uint32(len(data))), data)
	return join([]byte{0x11}, pkgLength(len(inner)), inner)
}

// ports is the resource of n I/O ports from base, decoded with 16 bits.
func ports(base uint16, n byte) []byte {
	return []byte{0x47, 1, byte(base), byte(base >> 8), byte(base), byte(base >> 8), 1, n}
}

// edge is the resource of an interrupt: edge triggered, active high, exclusive.
func edge(line uint32) []byte {
	const edgeTriggered = 1 << 1
	return interrupt(edgeTriggered, line)
}

// level is the other kind.
func level(line uint32) []byte { return interrupt(0, line) }

func interrupt(flags byte, line uint32) []byte {
	const consumer = 1 << 0
	return binary.LittleEndian.AppendUint32([]byte{0x89, 6, 0, consumer | flags, 1}, line)
}

// reserved is the resource of memory that is nobody else's.
func reserved(base, size uint32) []byte {
	const writable = 1
	b := []byte{0x86, 9, 0, writable}
	return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(b, base), size)
}

// What a bridge hands down: its addresses are fixed at both ends.
const (
	rangeMemory, rangeBuses = 0, 2
	rangeFixed              = 1<<2 | 1<<3
)

// buses is the resource of the bus numbers first to last.
func buses(first, last uint16) []byte {
	b := []byte{0x88, 13, 0, rangeBuses, rangeFixed, 0}
	for _, v := range []uint16{0, first, last, 0, last - first + 1} {
		b = binary.LittleEndian.AppendUint16(b, v)
	}
	return b
}

// window is the resource of memory space, not cacheable, that a bridge passes on.
func window(base, end uint32) []byte {
	const readWrite = 1
	b := []byte{0x87, 23, 0, rangeMemory, rangeFixed, readWrite}
	for _, v := range []uint32{0, base, end - 1, 0, end - base} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}
