// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import "encoding/binary"

// mutate breaks the call, as often as the theme asks for.
func (g *gen) mutate() {
	if g.IntN(100) >= g.theme.wild {
		return
	}
	for {
		switch g.IntN(12) {
		case 0, 1:
			g.mutateDescriptor()
		case 2, 3:
			g.mutatePlace()
		case 4:
			g.mutateSize()
		case 5:
			g.c.last = !g.c.last
		default:
			g.mutateField()
		}
		if !g.one(4) {
			return
		}
	}
}

// mutateDescriptor gives the call to a descriptor of any kind.
func (g *gen) mutateDescriptor() { g.c.on = g.any() }

// any is a descriptor of any kind.
func (g *gen) any() ref {
	k := kind(g.IntN(int(kinds)))
	return ref{k, uint8(g.IntN(used[k]))}
}

// mutatePlace puts the argument where it cannot be read or written.
func (g *gen) mutatePlace() {
	if len(g.c.arg) == 0 {
		g.c.n[0] = g.odd(8) // of a command without one
		return
	}
	g.c.at, g.c.atN = placeCut+place(g.IntN(int(places-placeCut))), g.Uint64()
}

// mutateField writes something else into one of the fields.
func (g *gen) mutateField() {
	fields := g.c.of.fields
	if len(fields) == 0 || len(g.c.edits) == cap(g.c.edits) {
		return
	}
	f := fields[g.IntN(len(fields))]
	if f.off+f.width > len(g.c.arg) {
		return
	}
	g.c.edits = append(g.c.edits, edit{f.off, f.width, g.odd(f.width)})
}

// mutateSize says another size than it is, or puts something behind what the
// kernel knows.
func (g *gen) mutateSize() {
	c := &g.c
	if c.of.req == 0 || len(c.arg) < 4 {
		return
	}
	size := len(c.arg)
	grow := [...]int{1, 4, 8, 8, 64, 4096, 4097, 16384}
	if n := grow[g.IntN(len(grow))]; g.one(2) && size+n <= maxArg {
		c.arg = g.buf[:size+n]
		g.dirty = len(c.arg)
		binary.LittleEndian.PutUint32(c.arg, uint32(size+n))
		if g.one(2) {
			c.arg[size+g.IntN(n)] = 1
		}
		return
	}
	sizes := [...]int{0, 1, 4, 7, 8, 12, size - 1, size - 4, size - 8, size / 2, 1 << 31, 1<<32 - 1, 1<<31 - 1}
	binary.LittleEndian.PutUint32(c.arg, uint32(sizes[g.IntN(len(sizes))]))
}

// odd is a number at the edge of what width bytes hold, or like what the kernel
// uses as numbers of things.
func (g *gen) odd(width int) uint64 {
	all := ^uint64(0) >> (64 - 8*width)
	top := all ^ all>>1
	switch g.IntN(12) {
	case 0:
		return 0
	case 1:
		return 1
	case 2:
		return all
	case 3:
		return top
	case 4:
		return top - 1
	case 5:
		return all & (1 << g.IntN(64))
	case 6:
		return all & ^uint64(1<<g.IntN(64))
	case 7:
		return all & (0x1000 << g.IntN(20))
	case 8:
		return all & (0x1000<<g.IntN(20) - 1)
	case 9:
		return all & g.Uint64()
	default:
		return g.Uint64N(80)
	}
}
