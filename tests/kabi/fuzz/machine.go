// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import "vmctl/abi"

// The zone is a piece of the address space that is reserved whole, far from all
// that the program has else. Guest memory and run areas lie in it, at addresses
// that are the same in every life: whatever a guest, a stale mapping or a wrong
// size reaches from there, it is nothing of ours.
const (
	zoneBase = 1 << 44
	zoneSize = 1 << 40
	areaBase = zoneBase
	areaEach = 1 << 20
	areaSize = 64 << 10
	areas    = 8
	runBase  = zoneBase + 64<<20
	runEach  = 64 << 10
	runSize  = 3 * 4096 // what KVM on x86 says
)

func areaAt(i int) uint64 { return areaBase + uint64(i)*areaEach }

func runAt(slot int) uint64 { return runBase + uint64(slot)*runEach }

// add puts a step at the end of the sequence, as it should be.
func (g *gen) add(name string, slot, choice int) {
	g.todo = append(g.todo, step{op: named(name), slot: slot, choice: choice, clean: true})
}

// machine begins the sequence that makes a VM of the group at hand, up to where
// it can run. Sometimes a step is left out.
func (g *gen) machine() {
	g.todo = g.queue[:0]
	vm := g.group * perGroup
	g.add("VM_CREATE", vm, -1)
	if g.one(4) {
		g.add("VM_CONFIG_SET", vm, 1)
	}
	if g.one(3) {
		g.add("open disk", g.IntN(used[onDisk]), -1)
		g.add("VM_ATTACH_DISK", vm, 1)
	}
	g.add("VM_BIND", vm, -1)
	g.platform(vm)
	cpus := 1 + g.IntN(perGroup-1)
	for i := range cpus {
		g.add("VCPU_CREATE", vm, i)
	}
	g.memory(vm)
	for i := range cpus {
		g.startCPU(vm + i)
	}
	g.add("VM_DELEGATE", vm, int(g.vm()))
	g.add("VM_OPEN", -1, int(g.vm()))
	if g.one(16) {
		g.todo = append(g.todo[:3], g.todo[4:]...)
	}
}

// platform sets up interrupt chips and the like, or leaves them out.
func (g *gen) platform(vm int) {
	if g.one(3) {
		return
	}
	g.add("VM_SETUP TSS_ADDR", vm, 0)
	g.add("VM_SETUP IDENTITY_MAP", vm, 0)
	if g.one(4) {
		g.add("VM_SETUP CAP", vm, abi.KVMCapSplitIRQChip)
		return
	}
	g.add("VM_SETUP IRQCHIP", vm, 0)
	g.add("VM_SETUP PIT", vm, 0)
}

// memory maps the programs at 0, and sometimes more.
func (g *gen) memory(vm int) {
	area := g.IntN(areas)
	if g.one(4) {
		g.add("remap area", -1, area)
	}
	g.add("programs", -1, area)
	g.add("VM_MAP_MEMORY", vm, area)
	if g.one(3) {
		g.add("VM_MAP_MEMORY", vm, areas+g.IntN(areas))
	}
	if g.one(3) {
		g.add("VM_MAP_MMIO", vm, 0)
		g.add("VM_MAP_IRQ", vm, 0)
	}
}

// startCPU points a vCPU at one of the programs.
func (g *gen) startCPU(slot int) {
	g.add("map run", slot, 0)
	g.add("VCPU_GET_REGS SYSTEM", slot, 0)
	g.add("VCPU_SET_REGS SYSTEM", slot, 1)
	if g.one(3) {
		g.add("GET_INFO KVM_CPUID", -1, 0)
		g.add("VCPU_SET_REGS CPUID", slot, 1)
	}
	g.add("VCPU_SET_REGS GENERAL", slot, g.program())
	if g.one(4) {
		g.add("VCPU_SET_REGS MSRS", slot, 1)
	}
	if !g.one(8) { // else all but the first wait to be started
		g.add("VCPU_SET_REGS MP_STATE", slot, 1)
	}
}

// program chooses one, seldom one that runs until it is kicked: that costs time.
func (g *gen) program() int {
	p := g.IntN(len(programs))
	if stays[p] {
		p = g.IntN(len(programs))
	}
	return p
}
