// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"fmt"
	"hash/fnv"
	"strings"
)

// kind is what a descriptor is one of.
type kind uint8

const (
	onDev     kind = iota // /dev/vmm
	onVM                  // four for each group
	onVCPU                // likewise
	onEvent               // eventfds
	onDisk                // files for backends
	onTap                 // character devices for backends
	onTaken               // what VM_GET_BACKEND gave
	onOdd                 // files that are none of the above
	onNetlink             // sockets of the family
	onNothing             // a number that is no descriptor
	kinds
)

var kindNames = [kinds]string{"dev", "vm", "vcpu", "event", "disk", "tap", "taken", "odd", "nl", "nothing"}

// A group is one machine of a process, as the generator sees it: descriptors of
// one VM, most of the time, and of its vCPUs.
const (
	groups   = 3
	perGroup = 4
	slots    = groups * perGroup
)

// used is how many slots of a kind are in use.
var used = [kinds]int{2, slots, slots, 6, 8, 4, slots, 4, 3, 4}

// ref names a descriptor by its place in the pool.
type ref struct {
	kind kind
	slot uint8
}

func (r ref) String() string { return fmt.Sprintf("%s%d", kindNames[r.kind], r.slot) }

// fixKind is a kind of number that is known only when the call is made.
type fixKind uint8

const (
	fixFD      fixKind = iota // 32 bits: number of a descriptor
	fixID                     // 64 bits: number of the VM of a group
	fixForeign                // 64 bits: number of a VM of another worker
	fixNow                    // 64 bits: the time, and plus
	fixOut                    // 64 bits: address of memory that may be written
	fixFamily                 // 16 bits: number of the netlink family
)

// fix is a place in an argument where such a number belongs.
type fix struct {
	off  int
	what fixKind
	ref  ref
	plus int64
}

// edit is a place in an argument where something else is written than what a
// well-behaved caller would.
type edit struct {
	off   int
	width int
	value uint64
}

// place is where in memory an argument lies.
type place uint8

const (
	placePlain  place = iota
	placeEnd          // the last byte is followed by nothing
	placeOdd          // not aligned
	placeShared       // other threads write there at the same time
	placeLate         // each page comes when another thread gets around to it
	placeCut          // some of the last bytes are missing
	placeRead         // cannot be written
	placeBad          // no memory at all
	places
)

var placeNames = [places]string{"", "end", "odd", "shared", "late", "cut", "read-only", "bad"}

// call is one system call as a thread intends it.
type call struct {
	op       op
	of       *operation
	on       ref
	arg      []byte // with its size field, before fixes and edits
	fixes    []fix
	edits    []edit
	last     bool // take what the last GET of this class gave, if there was one
	at       place
	atN      uint64    // chooses within the place
	n        [3]uint64 // of calls that are no command, and where results go
	patience uint32    // ticks until a signal
}

// request is the number of the ioctl.
func (c *call) request() uintptr {
	if c.of.req == unknownReq {
		return uintptr(c.n[1])
	}
	return c.of.req
}

// String is the call as -print and -trace show it.
func (c *call) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %v", c.of.name, c.on)
	if c.n != [3]uint64{} {
		fmt.Fprintf(&b, " n=%x", c.n)
	}
	switch {
	case len(c.arg) > 128:
		h := fnv.New64a()
		h.Write(c.arg)
		fmt.Fprintf(&b, " %d bytes hash %x", len(c.arg), h.Sum64())
	case len(c.arg) > 0:
		fmt.Fprintf(&b, " %x", c.arg)
	}
	if c.last {
		b.WriteString(" last")
	}
	for _, f := range c.fixes {
		fmt.Fprintf(&b, " @%d=fix%d:%v%+d", f.off, f.what, f.ref, f.plus)
	}
	for _, e := range c.edits {
		fmt.Fprintf(&b, " @%d:%d=%#x", e.off, e.width, e.value)
	}
	if c.at != placePlain {
		fmt.Fprintf(&b, " %s:%d", placeNames[c.at], c.atN)
	}
	return b.String()
}
