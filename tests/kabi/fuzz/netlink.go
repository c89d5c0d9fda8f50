// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// Requests of the netlink family, as bytes: so that they can be wrong in every
// way.

const (
	nlHead   = unix.SizeofNlMsghdr + unix.GENL_HDRLEN
	nlDump   = unix.NLM_F_REQUEST | unix.NLM_F_DUMP
	maxReads = 12 // of the answer to one request; the rest is left unread
)

func netlinkOps() []operation {
	ask := func(name string, cmd uint8, flags uint16, attrs func(*gen, *call)) operation {
		return operation{name: name, nl: true, on: onNetlink, size: nlHead, do: doRequest, fields: headFields(),
			build: func(g *gen, c *call) {
				h := c.arg
				c.fixes = append(c.fixes, fix{off: 4, what: fixFamily})
				binary.LittleEndian.PutUint16(h[6:], flags)
				binary.LittleEndian.PutUint32(h[8:], g.Uint32())
				h[16], h[17] = cmd, abi.GenlVersion
				attrs(g, c)
				g.wrongAttributes(c)
				binary.LittleEndian.PutUint32(c.arg, uint32(len(c.arg)))
				c.n[0] = 1 + g.Uint64N(maxReads)
			}}
	}
	const do = unix.NLM_F_REQUEST | unix.NLM_F_ACK
	return []operation{
		ask("VM_GET do", abi.CmdVMGet, do, vmID(abi.AVMID)),
		ask("VM_GET dump", abi.CmdVMGet, nlDump, nothing),
		ask("VCPU_GET", abi.CmdVCPUGet, nlDump, maybe(vmID(abi.AVCPUVMID))),
		ask("DEVICE_GET", abi.CmdDeviceGet, nlDump, maybe(vmID(abi.ADevVMID))),
		ask("EVENT_GET", abi.CmdEventGet, nlDump, maybe(func(g *gen, c *call) {
			g.attr(c, abi.AVMEventSeq, binary.LittleEndian.AppendUint64(nil, g.Uint64N(1<<g.IntN(20))))
		})),
		ask("TOMB_GET do", abi.CmdTombGet, do, vmID(abi.AVMID)),
		ask("TOMB_GET dump", abi.CmdTombGet, nlDump, nothing),
		ask("NETLINK unknown", 0, do, func(g *gen, c *call) {
			c.arg[16], c.arg[17] = byte(g.Uint32N(12)), byte(g.Uint32N(3))
			binary.LittleEndian.PutUint16(c.arg[6:], uint16(g.Uint32()))
			for range g.IntN(4) {
				g.attr(c, uint16(g.Uint32N(24)), make([]byte, g.IntN(20)))
			}
		}),
		{name: "NETLINK join", nl: true, on: onNetlink, do: doJoin, build: func(g *gen, c *call) { c.n[0] = g.Uint64N(4) }},
	}
}

// headFields are the numbers of both headers.
func headFields() []field {
	return []field{{0, 4}, {4, 2}, {6, 2}, {8, 4}, {12, 4}, {16, 1}, {17, 1}, {18, 2}, {20, 2}, {22, 2}}
}

func nothing(*gen, *call) {}

func maybe(f func(*gen, *call)) func(*gen, *call) {
	return func(g *gen, c *call) {
		if g.one(2) {
			f(g, c)
		}
	}
}

// attr appends an attribute.
func (g *gen) attr(c *call, kind uint16, value []byte) {
	at := len(c.arg)
	size := unix.SizeofNlAttr + len(value)
	c.arg = g.buf[:at+(size+3)&^3]
	binary.LittleEndian.PutUint16(c.arg[at:], uint16(size))
	binary.LittleEndian.PutUint16(c.arg[at+2:], kind)
	copy(c.arg[at+unix.SizeofNlAttr:], value)
}

// vmID names a VM: one of this process, one of another, or none.
func vmID(kind uint16) func(*gen, *call) {
	return func(g *gen, c *call) {
		g.attr(c, kind, make([]byte, 8))
		f := fix{off: len(c.arg) - 8, what: fixForeign, plus: int64(g.Uint32N(maxWorkers * groups))}
		if g.one(3) {
			f.what, f.plus = fixID, int64(g.group)
		}
		if g.one(8) {
			binary.LittleEndian.PutUint64(c.arg[len(c.arg)-8:], g.Uint64N(4000))
			return
		}
		c.fixes = append(c.fixes, f)
	}
}

// wrongAttributes adds what does not belong there, and makes lengths that lie.
func (g *gen) wrongAttributes(c *call) {
	if !g.one(6) {
		return
	}
	switch g.IntN(4) {
	case 0:
		g.attr(c, uint16(g.Uint32N(30)), make([]byte, g.IntN(16)))
	case 1:
		g.attr(c, uint16(g.odd(2)), make([]byte, g.IntN(300)))
	case 2:
		at := len(c.arg)
		g.attr(c, uint16(g.Uint32N(30)), make([]byte, 8))
		binary.LittleEndian.PutUint16(c.arg[at:], uint16(g.odd(2)))
	default:
		c.arg = c.arg[:nlHead+g.IntN(len(c.arg)-nlHead+1)]
	}
}
