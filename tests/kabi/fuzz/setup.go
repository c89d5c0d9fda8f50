// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"unsafe"

	"vmctl/abi"
)

// Commands that set up a machine, up to where it has a vCPU.

// value is a command by class whose payload is one number.
func value(name string, req uintptr, class uint32, on kind, choose func(*gen) uint64) operation {
	return classed[uint64](name, req, class, on, func(g *gen, c *call) { *in[uint64](c, headSize) = choose(g) })
}

func setupOps() []operation {
	setup := func(class string) string { return "VM_SETUP " + class }
	return []operation{
		value(setup("TSS_ADDR"), abi.IOCVMSetup, abi.SetupTSSAddr, onVM, func(g *gen) uint64 { return 0xfffb_d000 }),
		value(setup("IDENTITY_MAP"), abi.IOCVMSetup, abi.SetupIdentityMap, onVM, func(g *gen) uint64 { return 0xfffb_c000 }),
		classed[struct{}](setup("IRQCHIP"), abi.IOCVMSetup, abi.SetupIRQChip, onVM, nil),
		classed[abi.KVMPITConfig](setup("PIT"), abi.IOCVMSetup, abi.SetupPIT, onVM, func(g *gen, c *call) {
			in[abi.KVMPITConfig](c, headSize).Flags = g.Uint32N(2)
		}),
		value(setup("TSC_KHZ"), abi.IOCVMSetup, abi.SetupTSCKHz, onVM, func(g *gen) uint64 { return 500_000 + g.Uint64N(3_000_000) }),
		classed[abi.KVMEnableCap](setup("CAP"), abi.IOCVMSetup, abi.SetupCap, onVM, buildCap),
		withAfter(whole[abi.VCPUCreate]("VCPU_CREATE", abi.IOCVCPUCreate, onVM, buildVCPU), afterVCPU),
	}
}

// caps are what VM_SETUP forwards, and one that it does not, with a good value.
var caps = [...]struct {
	cap uint32
	arg uint64
}{
	{abi.KVMCapSplitIRQChip, 24}, {abi.KVMCapX2APICAPI, abi.KVMX2APICAPIUse32bitIDs}, {abi.KVMCapX86DisableExits, abi.KVMX86DisableExitsPause},
	{abi.KVMCapMaxVCPUID, 16}, {abi.KVMCapExceptionPayload, 1}, {abi.KVMCapIRQChip, 0},
}

func buildCap(g *gen, c *call) {
	v := in[abi.KVMEnableCap](c, headSize)
	chosen := caps[g.IntN(len(caps))]
	if g.step.choice >= 0 {
		chosen = caps[0]
	}
	v.Cap, v.Args[0] = chosen.cap, chosen.arg
}

func buildVCPU(g *gen, c *call) {
	v := in[abi.VCPUCreate](c, 0)
	v.Index = g.cpu()
	if g.step.choice >= 0 {
		v.Index = uint32(g.step.choice)
	}
	c.n[0] = uint64(c.on.slot/perGroup*perGroup) + uint64(v.Index)%perGroup
}

func afterVCPU(t *thread, c *call, arg []byte) {
	t.pool.put(ref{onVCPU, uint8(c.n[0])}, (*abi.VCPUCreate)(unsafe.Pointer(&arg[0])).FD)
}
