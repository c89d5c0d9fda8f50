// SPDX-License-Identifier: Apache-2.0

package boot

import "vmctl/abi"

// Segments as the boot protocol names them: __BOOT_CS and __BOOT_DS.
const (
	codeSelector = 0x10
	dataSelector = 0x18
	taskSelector = 0x20
	gdtEntries   = 5
)

// Descriptors: code of 64 and of 32 bits, data, and task states.
const (
	desc64     = 0x00af9b000000ffff
	desc32     = 0x00cf9b000000ffff
	descData   = 0x00cf93000000ffff
	descTask   = 0x008f8b000000ffff
	descTask32 = 0x00008b0000000067
)

// gdt is the descriptor table that the selectors index. The kernel replaces it
// at once.
func gdt(code, task uint64) []byte {
	b := make([]byte, gdtEntries*8)
	order.PutUint64(b[codeSelector:], code)
	order.PutUint64(b[dataSelector:], descData)
	order.PutUint64(b[taskSelector:], task)
	return b
}

// Bits of the control registers and of EFER.
const (
	cr0PE, cr0ET, cr0PG = 1 << 0, 1 << 4, 1 << 31
	cr4PAE              = 1 << 5
	eferLME, eferLMA    = 1 << 8, 1 << 10
)

// Types of segments, as the hardware keeps them.
const (
	typeCode = 0xb // execute, read, accessed
	typeData = 0x3 // read, write, accessed
	typeTask = 0xb // busy 64-bit TSS
)

// Entry is how the boot processor begins.
type Entry struct {
	Regs abi.KVMRegs
	Set  func(*abi.KVMSregs) // changes what is not as after power-on
}

// reservedFlag is always set.
const reservedFlag = 1 << 1

// enterRegs is the state of the boot processor's general registers.
func enterRegs(entry uint64) abi.KVMRegs {
	return abi.KVMRegs{Rip: entry, Rsi: zeroPage, Rsp: stackTop, Rflags: reservedFlag}
}

// enterSregs puts the boot processor into 64-bit mode. What is not about that
// stays as it is after power-on.
func enterSregs(s *abi.KVMSregs) {
	s.Cs = flat(codeSelector, typeCode)
	s.Cs.L = 1
	setData(s)
	s.Tr = abi.KVMSegment{Limit: 0xffff, Selector: taskSelector, Type: typeTask, Present: 1}
	s.Gdt = abi.KVMDTable{Base: gdtAddr, Limit: gdtEntries*8 - 1}
	s.Idt = abi.KVMDTable{}
	s.Cr0 = cr0PE | cr0ET | cr0PG
	s.Cr3 = pml4Addr
	s.Cr4 = cr4PAE
	s.Efer = eferLME | eferLMA
}

func flat(selector uint16, kind uint8) abi.KVMSegment {
	return abi.KVMSegment{Limit: 0xffffffff, Selector: selector, Type: kind, Present: 1, S: 1, G: 1}
}

func setData(s *abi.KVMSregs) {
	data := flat(dataSelector, typeData)
	data.Db = 1
	s.Ds, s.Es, s.Fs, s.Gs, s.Ss = data, data, data, data, data
}

// BootMSRs are the model specific registers that firmware would have set, on
// every processor: fast string instructions, and memory that is cached where the
// page tables do not say otherwise. A guest that finds its MTRRs off leaves PAT
// off too.
func BootMSRs() []abi.KVMMSREntry {
	const (
		miscEnable, fastStrings = 0x1a0, 1 << 0
		mtrrDefault             = 0x2ff
		mtrrEnabled, writeBack  = 1 << 11, 6
	)
	return []abi.KVMMSREntry{{Index: miscEnable, Data: fastStrings}, {Index: mtrrDefault, Data: mtrrEnabled | writeBack}}
}

// SetLINT connects the local interrupt pins as a PC's firmware does: the 8259 to
// the first, the NMI to the second.
func SetLINT(lapic *abi.KVMLAPICState) {
	const (
		lint0, lint1 = 0x350, 0x360
		modeMask     = 7 << 8
		masked       = 1 << 16
		external     = 7 << 8
		nmi          = 4 << 8
	)
	set := func(reg int, mode uint32) {
		order.PutUint32(lapic.Regs[reg:], order.Uint32(lapic.Regs[reg:])&^(modeMask|masked)|mode)
	}
	set(lint0, external)
	set(lint1, nmi)
}
