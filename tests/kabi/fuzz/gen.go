// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"encoding/binary"
	"math/rand/v2"
	"unsafe"
)

// maxArg is the longest argument: all routes, and more than a page behind them.
const maxArg = 256 << 10

// gen draws the calls of one thread. It never learns what came of them.
type gen struct {
	*rand.Rand
	theme *theme
	left  int // calls until the next theme
	low   int // calls until a low limit ends
	home  int // a group that is mostly this thread's
	group int // that the theme is about
	todo  []step
	queue [96]step // where todo lies
	step  step     // being made
	fresh uint64
	c     call
	buf   []byte
	dirty int // bytes of buf that may not be 0
	fixes [64]fix
	edits [8]edit
}

// step is a call of a sequence. A negative number leaves it to chance.
type step struct {
	op     op
	slot   int
	choice int  // what the builder is to do
	clean  bool // as it should be
}

// free is a step that leaves all to chance.
func free(o op) step { return step{op: o, slot: -1, choice: -1} }

func newGen(seed uint64, n name) *gen {
	g := &gen{Rand: rand.New(rand.NewPCG(seed, uint64(n.worker)<<48|uint64(n.life)<<8|uint64(n.thread)))}
	g.buf = make([]byte, maxArg+16)
	// Structures of 64-bit words are built in it.
	g.buf = g.buf[-uintptr(unsafe.Pointer(&g.buf[0]))&7:][:maxArg]
	g.home, g.todo = n.thread%groups, g.queue[:0]
	if n.thread == 0 {
		g.prelude()
	}
	return g
}

// prelude fills the pool of a new life.
func (g *gen) prelude() {
	for _, p := range []struct {
		name string
		kind kind
	}{{"open event", onEvent}, {"open disk", onDisk}, {"open tap", onTap}, {"open odd", onOdd}, {"open nl", onNetlink}} {
		for i := range used[p.kind] {
			g.add(p.name, i, -1)
		}
	}
}

// one says yes once in n times.
func (g *gen) one(n int) bool { return g.IntN(n) == 0 }

// next is the next call. It is good until next is called again.
func (g *gen) next() *call {
	if len(g.todo) == 0 {
		if g.left == 0 {
			g.begin()
		} else {
			g.left--
		}
	}
	g.step = g.choose()
	g.make()
	if !g.step.clean {
		g.mutate()
	}
	return &g.c
}

// choose is the next step.
func (g *gen) choose() step {
	if g.low > 0 {
		if g.low--; g.low == 0 {
			return step{op: named("low limit"), slot: -1, choice: 0, clean: true}
		}
	}
	if len(g.todo) == 0 {
		o := g.theme.pick(g)
		if ops[o].ends && !g.one(3) {
			o = g.theme.pick(g)
		}
		return free(o)
	}
	s := g.todo[0]
	g.todo = g.todo[1:]
	return s
}

// begin chooses a theme, and mostly a machine that is made for it.
func (g *gen) begin() {
	g.theme = &themes[pickWeight(g, themeWeights)]
	g.left = g.theme.least + g.IntN(g.theme.least)
	g.group = g.home
	if g.one(3) {
		g.group = g.IntN(groups)
	}
	if g.theme.machine && !g.one(4) {
		g.machine()
	}
}

// make builds the call of g.step.
func (g *gen) make() {
	o := &ops[g.step.op]
	clear(g.buf[:g.dirty])
	g.dirty = 0
	g.c = call{op: g.step.op, of: o, on: g.slot(o.on), fixes: g.fixes[:0], edits: g.edits[:0], patience: 1 + g.Uint32N(5)}
	c := &g.c
	c.arg = g.buf[:o.size]
	if g.step.slot >= 0 {
		c.on.slot = uint8(g.step.slot)
	}
	if o.class != 0 {
		binary.LittleEndian.PutUint32(c.arg[4:], o.class)
	}
	if o.build != nil {
		o.build(g, c)
	}
	if o.req != 0 && len(c.arg) > 0 {
		binary.LittleEndian.PutUint32(c.arg, uint32(len(c.arg)))
	}
	g.dirty = len(c.arg)
	if c.at == placePlain && len(c.arg) > 0 && g.one(8) {
		c.at, c.atN = place(1+g.IntN(int(placeLate))), g.Uint64()
		if c.at == placeShared && alone(o.req) {
			c.at = placeEnd
		}
	}
}

// slot chooses a descriptor of a kind: mostly of the machine at hand.
func (g *gen) slot(k kind) ref {
	if k != onVM && k != onVCPU {
		return ref{k, uint8(g.IntN(used[k]))}
	}
	group, i := g.group, 0
	if g.one(8) {
		group = g.IntN(groups)
	}
	switch {
	case g.one(10):
		i = perGroup - 1 // what came from elsewhere
	case k == onVCPU || g.one(3):
		i = g.IntN(perGroup - 1)
	}
	return ref{k, uint8(group*perGroup + i)}
}

// vm chooses a place for a further descriptor of the machine at hand, but not
// that of the first one: the VM ends with it.
func (g *gen) vm() uint64 { return uint64(g.group*perGroup + 1 + g.IntN(perGroup-1)) }

// unique is a number that this run has not had.
func (g *gen) unique() uint64 {
	g.fresh++
	return g.Uint64()&^0xffff | g.fresh&0xffff
}

// put writes a number where a descriptor's belongs when the call is made.
func (c *call) put(off int, r ref) { c.fixes = append(c.fixes, fix{off: off, what: fixFD, ref: r}) }

// pickWeight chooses an index by weight.
func pickWeight(g *gen, upTo []int) int {
	n := g.IntN(upTo[len(upTo)-1])
	for i, w := range upTo {
		if n < w {
			return i
		}
	}
	return 0
}
