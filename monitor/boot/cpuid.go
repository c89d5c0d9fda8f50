// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"math/bits"

	"vmctl/abi"
)

// Bits of CPUID that are changed.
const (
	leaf1VMX         = 1 << 5  // ecx
	leaf1X2APIC      = 1 << 21 // ecx
	leaf1Deadline    = 1 << 24 // ecx
	leaf1Hypervisor  = 1 << 31 // ecx
	leaf1HTT         = 1 << 28 // edx
	extCMPLegacy     = 1 << 1  // ecx of 0x80000001
	extSVM           = 1 << 2  // ecx of 0x80000001
	extPerfCore      = 1 << 23 // ecx of 0x80000001
	significantIndex = 1 << 0
)

// CPUs says what CPUID depends on beside the host.
type CPUs struct {
	Count    uint32
	Deadline bool // KVM has the TSC deadline timer
}

// CPUID makes what CPUID tells processor index of what KVM supports: one package
// of Count cores without threads, whose APIC ids are their numbers. Nested
// virtualisation and performance counters are hidden: we cannot reset the former
// with the machine, and the latter cost exits at every boot.
func (c CPUs) CPUID(supported []abi.KVMCPUIDEntry2, index uint32) []abi.KVMCPUIDEntry2 {
	list := make([]abi.KVMCPUIDEntry2, 0, len(supported)+3)
	var maxLeaf uint32
	for _, e := range supported {
		switch e.Function {
		case 0:
			maxLeaf = e.Eax
		case 0xb, 0x1f:
			continue // made below
		case 0xa, 0x8000000a, 0x80000022:
			e.Eax, e.Ebx, e.Ecx, e.Edx = 0, 0, 0, 0
		}
		c.change(&e, index)
		list = append(list, e)
	}
	if maxLeaf >= 0xb {
		list = append(list, c.topology(index)...)
	}
	return list
}

// idBits is how many bits of an APIC id tell cores apart.
func (c CPUs) idBits() uint32 { return uint32(bits.Len32(c.Count - 1)) }

func (c CPUs) change(e *abi.KVMCPUIDEntry2, index uint32) {
	switch e.Function {
	case 1:
		e.Ebx = e.Ebx&0xffff | c.Count<<16 | index<<24
		e.Ecx = e.Ecx&^leaf1VMX | leaf1Hypervisor | leaf1X2APIC
		if c.Deadline {
			e.Ecx |= leaf1Deadline
		}
		e.Edx &^= leaf1HTT
		if c.Count > 1 {
			e.Edx |= leaf1HTT
		}
	case 4: // Intel's caches
		if e.Eax&0x1f != 0 {
			e.Eax = e.Eax&0x3fff | c.sharing(e.Eax)<<14 | min(uint32(1)<<c.idBits()-1, 63)<<26
		}
	case 0x80000001:
		e.Ecx &^= extSVM | extPerfCore | extCMPLegacy
		if c.Count > 1 {
			e.Ecx |= extCMPLegacy
		}
	case 0x80000008:
		e.Ecx = e.Ecx&^0xf0ff | c.idBits()<<12 | (c.Count - 1)
	case 0x8000001d: // AMD's caches
		if e.Eax&0x1f != 0 {
			e.Eax = e.Eax&0x3fff | c.sharing(e.Eax)<<14
		}
	case 0x8000001e:
		e.Eax, e.Ebx, e.Ecx = index, index&0xff, 0
	}
}

// sharing is how many processors, less one, share a cache: the third level is
// the package's, the others a core's.
func (c CPUs) sharing(eax uint32) uint32 {
	if level := eax >> 5 & 7; level >= 3 {
		return 1<<c.idBits() - 1
	}
	return 0
}

// topology is leaf 0xb: one thread in a core, Count cores in the package.
func (c CPUs) topology(index uint32) []abi.KVMCPUIDEntry2 {
	const thread, core = 1 << 8, 2 << 8
	level := func(n, shift, count, kind uint32) abi.KVMCPUIDEntry2 {
		return abi.KVMCPUIDEntry2{
			Function: 0xb, Index: n, Flags: significantIndex,
			Eax: shift, Ebx: count, Ecx: kind | n, Edx: index,
		}
	}
	return []abi.KVMCPUIDEntry2{level(0, 0, 1, thread), level(1, c.idBits(), c.Count, core), level(2, 0, 0, 0)}
}
