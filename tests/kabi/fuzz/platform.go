// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"slices"
	"unsafe"

	"vmctl/abi"
)

// Commands that map memory, doorbells and interrupts.

func platformOps() []operation {
	return []operation{
		memoryOp(),
		whole[abi.VMMapMMIO]("VM_MAP_MMIO", abi.IOCVMMapMMIO, onVM, buildDoorbell),
		whole[abi.VMMapIRQ]("VM_MAP_IRQ", abi.IOCVMMapIRQ, onVM, buildIRQ),
		whole[abi.VMSetRoutes]("VM_SET_ROUTES", abi.IOCVMSetRoutes, onVM, buildRoutes),
		classed[abi.KVMMSI]("VM_SIGNAL MSI", abi.IOCVMSignal, abi.SignalMSI, onVM, func(g *gen, c *call) {
			*in[abi.KVMMSI](c, headSize) = abi.KVMMSI{AddressLo: 0xfee0_0000 | g.Uint32N(4)<<12, Data: g.Uint32N(0x800)}
		}),
		classed[abi.KVMIRQLevel]("VM_SIGNAL LINE", abi.IOCVMSignal, abi.SignalLine, onVM, func(g *gen, c *call) {
			*in[abi.KVMIRQLevel](c, headSize) = abi.KVMIRQLevel{IRQ: g.Uint32N(26), Level: g.Uint32N(2)}
		}),
		whole[abi.VMDirtyLog]("VM_DIRTY_LOG", abi.IOCVMDirtyLog, onVM, buildDirtyLog),
	}
}

// memoryOp has fields whose values buildMemory alone may choose: a guest must not
// get our own memory.
func memoryOp() operation {
	o := whole[abi.VMMapMemory]("VM_MAP_MEMORY", abi.IOCVMMapMemory, onVM, buildMemory)
	size := int(unsafe.Offsetof(abi.VMMapMemory{}.Region) + unsafe.Offsetof(abi.KVMUserspaceMemoryRegion{}.MemorySize))
	o.fields = slices.DeleteFunc(o.fields, func(f field) bool { return f.off >= size })
	return o
}

// buildMemory maps an area. A choice below areas maps that area at 0, from there
// on another one above.
func buildMemory(g *gen, c *call) {
	r := &in[abi.VMMapMemory](c, 0).Region
	area, choice := g.IntN(areas), g.step.choice
	*r = abi.KVMUserspaceMemoryRegion{
		Slot: g.Uint32N(5), GuestPhysAddr: uint64(g.IntN(8)) * areaSize, MemorySize: areaSize, UserspaceAddr: areaAt(area),
	}
	switch {
	case choice >= areas:
		r.Slot, r.GuestPhysAddr, r.Flags = 1, 2*areaSize, abi.KVMMemLogDirtyPages
	case choice >= 0:
		r.Slot, r.GuestPhysAddr, r.UserspaceAddr = 0, 0, areaAt(choice)
		r.Flags = abi.KVMMemLogDirtyPages * g.Uint32N(2)
	default:
		g.wildMemory(r)
	}
}

// wildMemory keeps to addresses from which a guest reaches nothing of ours: the
// zone, or where there never is memory.
func (g *gen) wildMemory(r *abi.KVMUserspaceMemoryRegion) {
	r.Flags = g.Uint32N(4)
	switch g.IntN(8) {
	case 0, 1:
		r.MemorySize = 0 // unmap
	case 2:
		r.MemorySize = 4096 << g.IntN(27)
		if g.one(8) {
			r.MemorySize = 1 << (44 + g.IntN(20)) // more than KVM takes
		}
	case 3:
		r.MemorySize = g.Uint64N(4 * areaSize)
	case 4:
		r.UserspaceAddr += g.Uint64N(areaSize)
	case 5:
		outside := [...]uint64{0, 1<<47 - 4096, 1 << 47, 1 << 63, ^uint64(4095)}
		r.UserspaceAddr = outside[g.IntN(len(outside))]
	case 6:
		r.GuestPhysAddr = g.odd(8)
	}
}

func buildDoorbell(g *gen, c *call) {
	v := in[abi.VMMapMMIO](c, 0)
	b := &v.IOEventFD
	b.Addr, b.Len = doorAddr+g.Uint64N(8), 1<<g.IntN(4)
	if g.one(2) {
		b.Addr, b.Len, b.Flags = portAddr+g.Uint64N(2), 1<<g.IntN(3), abi.KVMIOEventFDFlagPIO
	}
	if g.step.choice >= 0 {
		*b = abi.KVMIOEventFD{Addr: portAddr, Len: 1, Flags: abi.KVMIOEventFDFlagPIO}
	} else {
		if g.one(3) {
			b.Flags |= abi.KVMIOEventFDFlagDataMatch
			b.DataMatch = g.Uint64N(3)
		}
		if g.one(3) {
			b.Flags |= abi.KVMIOEventFDFlagDeassign
		}
	}
	c.put(int(uintptr(unsafe.Pointer(&b.FD))-uintptr(unsafe.Pointer(v))), g.backing(onEvent))
}

func buildIRQ(g *gen, c *call) {
	v := in[abi.VMMapIRQ](c, 0)
	q := &v.IRQFD
	q.GSI = g.Uint32N(26)
	if g.step.choice < 0 {
		q.Flags = g.Uint32N(4) & g.Uint32N(4)
	}
	base := uintptr(unsafe.Pointer(v))
	c.put(int(uintptr(unsafe.Pointer(&q.FD))-base), g.backing(onEvent))
	if q.Flags&abi.KVMIRQFDFlagResample != 0 {
		c.put(int(uintptr(unsafe.Pointer(&q.ResampleFD))-base), g.backing(onEvent))
	}
}

func buildRoutes(g *gen, c *call) {
	n := g.IntN(8)
	if g.one(50) {
		n = abi.MaxRoutes + g.IntN(2)
	}
	each := int(unsafe.Sizeof(abi.KVMIRQRoutingEntry{}))
	head := len(c.arg)
	c.arg = g.buf[:head+n*each]
	in[abi.VMSetRoutes](c, 0).Routing.Nr = uint32(n)
	for i := range n {
		e := in[abi.KVMIRQRoutingEntry](c, head+i*each)
		gsi := g.Uint32N(30)
		if g.one(2) {
			*e = abi.RouteMSI(gsi, 0xfee0_0000, g.Uint32N(0x100))
		} else {
			*e = abi.RouteIRQChip(gsi, g.Uint32N(3), g.Uint32N(24))
		}
		if g.one(30) {
			e.Type = g.Uint32N(8)
		}
	}
}

func buildDirtyLog(g *gen, c *call) {
	v := in[abi.VMDirtyLog](c, 0)
	v.Log.Slot = g.Uint32N(5)
	at := int(unsafe.Offsetof(v.Log) + unsafe.Offsetof(v.Log.DirtyBitmap))
	c.fixes = append(c.fixes, fix{off: at, what: fixOut, plus: int64(g.IntN(2)) * g.Int64N(outSize)})
}
