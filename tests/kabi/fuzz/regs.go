// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"unsafe"

	"vmctl/abi"
)

// Commands that read and write state, of the platform and of vCPUs.

// pair is GET and SET of a class. SET takes what the last GET gave, mostly.
func pair[T any](prefix, name string, get, set uintptr, class uint32, on kind, stash int, build func(*gen, *call)) []operation {
	g := classed[T](prefix+"GET_"+name, get, class, on, build)
	g.stash, g.keeps = stash, true
	s := classed[T](prefix+"SET_"+name, set, class, on, func(g *gen, c *call) {
		c.last = g.step.choice >= 0 || !g.one(8)
		if build != nil {
			build(g, c)
		}
	})
	s.stash = stash
	return []operation{g, s}
}

func stateOps() (list []operation) {
	chip := func(g *gen, c *call) { in[abi.KVMIRQChip](c, headSize).ChipID = g.Uint32N(3) }
	state := func(ops []operation) { list = append(list, ops...) }
	state(pair[abi.KVMIRQChip]("VM_", "STATE IRQCHIP", abi.IOCVMGetState, abi.IOCVMSetState, abi.StateIRQChip, onVM, stashState, chip))
	state(pair[abi.KVMPITState2]("VM_", "STATE PIT", abi.IOCVMGetState, abi.IOCVMSetState, abi.StatePIT, onVM, stashState+1, nil))
	state(pair[abi.KVMClockData]("VM_", "STATE CLOCK", abi.IOCVMGetState, abi.IOCVMSetState, abi.StateClock, onVM, stashState+2, nil))
	return list
}

// xsaveRoom holds the state of every processor without tile registers: what is
// beyond that of the host is a tail of zeros.
type xsaveRoom struct{ Region [2048]uint32 }

// regs is the pair of a class of registers.
func regs[T any](name string, class uint32, build func(*gen, *call)) []operation {
	return pair[T]("VCPU_", "REGS "+name, abi.IOCVCPUGetRegs, abi.IOCVCPUSetRegs, class, onVCPU, stashRegs+int(class), build)
}

func regsOps() (list []operation) {
	for _, two := range [][]operation{
		regs[abi.KVMRegs]("GENERAL", abi.RegsGeneral, buildGeneral),
		regs[abi.KVMSregs]("SYSTEM", abi.RegsSystem, buildSystem),
		regs[abi.KVMFPU]("FPU", abi.RegsFPU, nil),
		regs[xsaveRoom]("XSAVE", abi.RegsXsave, nil),
		regs[abi.KVMXCRs]("XCRS", abi.RegsXCRs, nil),
		regs[abi.KVMDebugRegs]("DEBUG", abi.RegsDebug, nil),
		regs[abi.KVMMSRs]("MSRS", abi.RegsMSRs, buildMSRs),
		regs[abi.KVMCPUID2]("CPUID", abi.RegsCPUID, buildCPUID),
		regs[abi.KVMLAPICState]("LAPIC", abi.RegsLAPIC, buildLAPIC),
		regs[abi.KVMMPState]("MP_STATE", abi.RegsMPState, buildMPState),
		regs[abi.KVMVCPUEvents]("EVENTS", abi.RegsEvents, nil),
		regs[uint64]("TSC_KHZ", abi.RegsTSCKHz, nil),
		regs[abi.KVMSregs2]("SYSTEM2", abi.RegsSystem2, nil),
	} {
		list = append(list, two...)
	}
	for i := range list {
		if list[i].class == abi.RegsCPUID { // one stash with what KVM supports
			list[i].stash = stashCPUID
		}
	}
	return append(list, classed[struct{}]("VCPU_SET_REGS KVMCLOCK_CTRL", abi.IOCVCPUSetRegs, abi.RegsKVMClockCtrl, onVCPU, nil))
}

// buildGeneral starts a program; a choice names it.
func buildGeneral(g *gen, c *call) {
	v := in[abi.KVMRegs](c, headSize)
	program := g.program()
	if g.step.choice >= 0 {
		program, c.last = g.step.choice, false
	}
	*v = abi.KVMRegs{Rip: codeAddr + uint64(program)*codeEach, Rsp: stackAddr, Rflags: 2}
}

// buildSystem makes real mode of what the processor begins with.
func buildSystem(g *gen, c *call) {
	if g.step.choice == 1 {
		v := (*abi.KVMSregs)(nil)
		base := headSize + int(unsafe.Offsetof(v.Cs))
		c.last = true
		c.edits = append(c.edits, edit{base + int(unsafe.Offsetof(v.Cs.Base)), 8, 0}, edit{base + int(unsafe.Offsetof(v.Cs.Selector)), 2, 0})
	}
}

// Numbers of MSRs: TSC, SYSENTER_CS, PAT, APIC_BASE, STAR, GS.base, KVM's clock,
// and one that is not there.
var msrs = [...]uint32{0x10, 0x174, 0x277, 0x1b, 0xc000_0081, 0xc000_0101, 0x4b56_4d01, 0xdead_0000}

const msrKVMClock = 0x4b56_4d01

// buildMSRs asks for a few; a choice switches KVM's clock on.
func buildMSRs(g *gen, c *call) {
	n := g.IntN(len(msrs))
	if g.step.choice == 1 {
		n, c.last = 1, false
	}
	each := int(unsafe.Sizeof(abi.KVMMSREntry{}))
	head := len(c.arg)
	c.arg = g.buf[:head+n*each]
	in[abi.KVMMSRs](c, headSize).NMSRs = uint32(n)
	for i := range n {
		e := in[abi.KVMMSREntry](c, head+i*each)
		e.Index = msrs[g.IntN(len(msrs))]
		if g.step.choice == 1 {
			e.Index, e.Data = msrKVMClock, dataAddr|1
		}
	}
}

func buildCPUID(g *gen, c *call) {
	if c.of.keeps {
		c.arg = g.buf[:headSize+8+mostCPUID*int(unsafe.Sizeof(abi.KVMCPUIDEntry2{}))]
		in[abi.KVMCPUID2](c, headSize).Nent = mostCPUID
	}
}

// buildLAPIC switches it on, now and then.
func buildLAPIC(g *gen, c *call) {
	if g.one(2) {
		c.edits = append(c.edits, edit{headSize + 0xf0, 4, 0x1ff})
	}
}

func buildMPState(g *gen, c *call) {
	if v := in[abi.KVMMPState](c, headSize); g.step.choice < 0 {
		v.MPState = g.Uint32N(5)
	}
	c.last = false
}
