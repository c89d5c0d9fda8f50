// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"errors"

	"vmctl/abi"
	"vmctl/monitor/acpi"
	"vmctl/monitor/mem"
)

// The structure by which a PVH kernel learns of its machine, and behind it the modules
// and the map of memory (xen/include/public/arch-x86/hvm/start_info.h).
const (
	startInfo  = 0x7000
	startMagic = 0x336ec578
	startMap   = 1 // the version that has the map

	startInfoSize = 56
	moduleSize    = 32
	modulesAt     = startInfo + startInfoSize
	mapAt         = modulesAt + moduleSize
)

// startInfo makes them.
func (im *Image) startInfo(m *mem.Memory, initrd uint64) []byte {
	list := e820(m)
	modules := uint32(0)
	if im.Initrd != nil {
		modules = 1
	}
	b := make([]byte, 0, mapAt-startInfo+24*len(list))
	for _, v := range []uint32{startMagic, startMap, 0, modules} {
		b = order.AppendUint32(b, v)
	}
	for _, v := range []uint64{modulesAt, cmdlineAddr, acpi.Base, mapAt, uint64(len(list))} {
		b = order.AppendUint64(b, v)
	}
	for _, v := range []uint64{initrd, uint64(im.InitrdSize), 0, 0} {
		b = order.AppendUint64(b, v)
	}
	for _, e := range list {
		b = order.AppendUint64(b, e.addr)
		b = order.AppendUint64(b, e.size)
		b = order.AppendUint64(b, uint64(e.kind))
	}
	return b
}

// enterPVH makes what a PVH kernel expects beside that: it begins in 32-bit mode, without
// pages (xen/docs/misc/pvh.pandoc).
func (im *Image) enterPVH(m *mem.Memory, initrd uint64) (Entry, error) {
	err := errors.Join(
		m.Write(startInfo, im.startInfo(m, initrd)),
		m.Write(gdtAddr, gdt(desc32, descTask32)),
	)
	return Entry{Regs: abi.KVMRegs{Rip: im.Kernel.entry, Rbx: startInfo, Rflags: reservedFlag}, Set: pvhSregs}, err
}

func pvhSregs(s *abi.KVMSregs) {
	const taskLimit = 0x67
	s.Cs = flat(codeSelector, typeCode)
	s.Cs.Db = 1
	setData(s)
	s.Tr = abi.KVMSegment{Limit: taskLimit, Selector: taskSelector, Type: typeTask, Present: 1}
	s.Gdt = abi.KVMDTable{Base: gdtAddr, Limit: gdtEntries*8 - 1}
	s.Idt = abi.KVMDTable{}
	s.Cr0, s.Cr3, s.Cr4, s.Efer = cr0PE|cr0ET, 0, 0, 0
}
