// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"encoding/binary"
	"unsafe"

	"vmctl/abi"
)

// Commands of /dev/vmm, and those that any descriptor knows.

// The longest lists that the kernel is asked for, in entries.
const (
	mostCPUID = 256
	mostMSRs  = 512
)

// Payloads that are kept.
const (
	stashNone = iota
	stashCPUID
	stashState // and on, by class
	stashRegs  = stashState + 4
	stashes    = stashRegs + 16
)

func deviceOps() []operation {
	info := func(name string, class uint32, size uintptr, build func(*gen, *call)) operation {
		o := operation{name: "GET_INFO " + name, req: abi.IOCGetInfo, class: class, on: onVM, size: headSize + int(size), build: build}
		for off := 0; off+4 <= min(o.size, 4*maxFields); off += 4 {
			o.fields = append(o.fields, field{off, 4})
		}
		return o
	}
	cpuid := info("KVM_CPUID", abi.InfoKVMCPUID, 8+mostCPUID*unsafe.Sizeof(abi.KVMCPUIDEntry2{}), buildCPUIDList)
	cpuid.stash, cpuid.keeps = stashCPUID, true
	return []operation{
		info("ABI", abi.InfoABI, unsafe.Sizeof(abi.ABIInfo{}), onAnyOfOurs),
		info("LIMITS", abi.InfoLimits, unsafe.Sizeof(abi.LimitsInfo{}), onAnyOfOurs),
		info("VM", abi.InfoVM, unsafe.Sizeof(abi.VMInfo{}), onVMOrCPU),
		info("KVM_EXTENSION", abi.InfoKVMExtension, unsafe.Sizeof(abi.KVMExtensionInfo{}), buildExtension),
		cpuid,
		info("KVM_MSRS", abi.InfoKVMMSRs, 4+mostMSRs*4, buildMSRList),
		info("RUN_SIZE", abi.InfoRunSize, unsafe.Sizeof(abi.RunSizeInfo{}), onAnyOfOurs),
		withAfter(whole[abi.VMCreate]("VM_CREATE", abi.IOCVMCreate, onDev, buildCreate), afterCreate),
		withAfter(whole[abi.VMOpen]("VM_OPEN", abi.IOCVMOpen, onDev, buildOpen), afterOpen),
	}
}

func withAfter(o operation, after func(*thread, *call, []byte)) operation {
	o.after = after
	return o
}

func onAnyOfOurs(g *gen, c *call) {
	if g.step.slot < 0 {
		c.on = g.slot(kind(g.IntN(3)))
	}
}

func onVMOrCPU(g *gen, c *call) {
	if g.one(3) {
		c.on = g.slot(onVCPU)
	}
}

// capabilities are some of KVM's, with and without an answer.
var capabilities = []uint32{
	abi.KVMCapIRQChip, abi.KVMCapNrVCPUs, abi.KVMCapNrMemSlots, abi.KVMCapMaxVCPUs, abi.KVMCapXsave2, abi.KVMCapSplitIRQChip,
	abi.KVMCapX86DisableExits, abi.KVMCapAdjustClock, 1 << 20,
}

func buildExtension(g *gen, c *call) {
	in[abi.KVMExtensionInfo](c, headSize).Extension = capabilities[g.IntN(len(capabilities))]
}

func buildCPUIDList(g *gen, c *call) {
	onAnyOfOurs(g, c)
	n := uint32(mostCPUID)
	if g.step.choice < 0 && g.one(4) {
		n = g.Uint32N(40)
		c.arg = c.arg[:headSize+8+n*uint32(unsafe.Sizeof(abi.KVMCPUIDEntry2{}))]
	}
	in[abi.KVMCPUID2](c, headSize).Nent = n
}

func buildMSRList(g *gen, c *call) {
	onAnyOfOurs(g, c)
	n := uint32(mostMSRs)
	if g.one(4) {
		n = g.Uint32N(20)
		c.arg = c.arg[:headSize+4+n*4]
	}
	in[abi.KVMMSRList](c, headSize).NMSRs = n
}

func buildCreate(g *gen, c *call) {
	v := in[abi.VMCreate](c, 0)
	switch {
	case g.step.slot >= 0:
		c.on.slot, c.n[0] = 0, uint64(g.step.slot)
	case g.one(6):
		c.n[0] = uint64(g.group * perGroup) // the machine ends
	default:
		c.n[0] = g.vm()
	}
	binary.LittleEndian.PutUint64(v.UUID[:], g.unique())
	binary.LittleEndian.PutUint64(v.UUID[8:], g.Uint64()|1)
	if g.step.choice < 0 && g.one(20) {
		v.UUID = [abi.UUIDLen]byte{1} // the same for all
	}
	const letters = "ABCxyz0189._-"
	n := 1 + g.IntN(abi.NameLen-1)
	for i := range v.Name[:n] {
		v.Name[i] = letters[g.IntN(len(letters))]
	}
	if g.one(40) {
		v.Name[g.IntN(abi.NameLen)] = byte(g.Uint32())
	}
}

func afterCreate(t *thread, c *call, arg []byte) {
	v := (*abi.VMCreate)(unsafe.Pointer(&arg[0]))
	t.pool.put(ref{onVM, uint8(c.n[0])}, v.FD)
	t.board.ids[c.n[0]/perGroup].Store(v.ID)
}

// rights chooses a set that is seldom all.
func (g *gen) rights() abi.Right {
	if g.one(3) {
		return abi.RightAll
	}
	return abi.Right(1 + g.IntN(int(abi.RightAll)))
}

func buildOpen(g *gen, c *call) {
	v := in[abi.VMOpen](c, 0)
	v.Rights = g.rights()
	c.n[0] = g.vm()
	if g.step.choice >= 0 {
		c.n[0] = uint64(g.step.choice)
	}
	id := fix{off: 8, what: fixForeign, plus: int64(g.Uint32N(maxWorkers * groups))}
	if g.one(3) {
		id = fix{off: 8, what: fixID, plus: int64(g.group)}
	}
	c.fixes = append(c.fixes, id)
}

func afterOpen(t *thread, c *call, arg []byte) {
	t.pool.put(ref{onVM, uint8(c.n[0])}, (*abi.VMOpen)(unsafe.Pointer(&arg[0])).FD)
}
