// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"errors"
	"io"

	"vmctl/abi"
	"vmctl/monitor/acpi"
	"vmctl/monitor/legacy"
	"vmctl/monitor/mem"
	"vmctl/monitor/pci"
)

// ErrNotFirmware is a file that is no firmware of a PC: it is 64 KiB to 256 KiB in
// steps of 64 KiB, and jumps where a processor begins.
var ErrNotFirmware = errors.New("not a PC's firmware")

const (
	firmwareEnd  = 1 << 20
	firmwareStep = 64 << 10
	maxFirmware  = 256 << 10

	// Where a PC's processor begins, in a copy of the firmware below 1 MiB.
	resetSegment = 0xf000
	resetOffset  = 0xfff0
	farJump      = 0xea
)

// Firmware is a BIOS that finds what to boot by itself. It runs in RAM: the host
// bridge has no registers that would shadow it, and none is at the end of 4 GiB, where
// SeaBIOS looks for a copy to restore before a reset. It resets the machine without.
type Firmware struct {
	rom    io.ReaderAt
	size   uint64
	tables *acpi.Tables
	config []legacy.FWFile
}

// ParseFirmware looks at a file of size bytes that is to boot a machine with that many
// processors in that memory. errors.Is: ErrNotFirmware, the errors of acpi and those of
// the file.
func ParseFirmware(rom io.ReaderAt, size int64, cpus uint32, m *mem.Memory) (*Firmware, error) {
	if size < firmwareStep || size > maxFirmware || size%firmwareStep != 0 {
		return nil, ErrNotFirmware
	}
	var first [1]byte
	if err := readFull(rom, first[:], size-0x10000+resetOffset); err != nil {
		return nil, err
	}
	if first[0] != farJump {
		return nil, ErrNotFirmware
	}
	// The tables lie behind what the firmware is told to be RAM.
	top := m.LowEnd() - acpi.Room
	tables, err := acpi.New(acpi.PC, cpus, top)
	if err != nil {
		return nil, err
	}
	f := &Firmware{rom: rom, size: uint64(size), tables: tables}
	f.config = []legacy.FWFile{
		{Name: "etc/e820", Data: firmwareMap(m, top)},
		{Name: "etc/sercon-port", Data: order.AppendUint16(nil, legacy.COM1)},
		{Name: rsdpFile, Data: tables.RSDP},
		{Name: "etc/table-loader", Data: loaderScript()},
	}
	return f, nil
}

// Config is what the firmware is to read of its machine.
func (f *Firmware) Config() []legacy.FWFile { return f.config }

// Check has nothing left to look at.
func (f *Firmware) Check(*mem.Memory) error { return nil }

// Generation is where the generation of the machine goes: see acpi.Tables.
func (f *Firmware) Generation() uint64 { return f.tables.Generation }

// Load puts firmware and tables into memory. errors.Is: ErrCutKernel when the file has
// shrunk, and those of the file.
func (f *Firmware) Load(m *mem.Memory) (Entry, error) {
	if err := readInto(m, firmwareEnd-f.size, f.rom, 0, f.size); err != nil {
		return Entry{}, err
	}
	if err := f.tables.Write(m.Write); err != nil {
		return Entry{}, err
	}
	return Entry{
		Regs: abi.KVMRegs{Rip: resetOffset, Rflags: reservedFlag},
		Set:  func(s *abi.KVMSregs) { s.Cs.Selector, s.Cs.Base = resetSegment, resetSegment<<4 },
	}, nil
}

// firmwareMap is the memory as the firmware is told it; it reserves its own parts.
func firmwareMap(m *mem.Memory, top uint64) (b []byte) {
	list := []e820Entry{
		{0, top, e820RAM},
		{top, acpi.Room, e820Reserved},
		{pci.ECAMBase, pci.ECAMSize, e820Reserved},
	}
	for _, r := range m.Regions()[1:] {
		list = append(list, e820Entry{r.Base, r.Len(), e820RAM})
	}
	for _, e := range list {
		b = order.AppendUint64(b, e.addr)
		b = order.AppendUint64(b, e.size)
		b = order.AppendUint32(b, e.kind)
	}
	return b
}

const rsdpFile = "etc/acpi/rsdp"

// loaderScript tells the firmware to put the root pointer where systems look for it.
// The tables have their places and need no command (QEMU's
// hw/acpi/bios-linker-loader.c).
func loaderScript() []byte {
	const (
		allocate, align, lowSegment = 1, 16, 2
		size, name                  = 128, 56
	)
	b := make([]byte, size)
	order.PutUint32(b, allocate)
	copy(b[4:4+name], rsdpFile)
	order.PutUint32(b[4+name:], align)
	b[4+name+4] = lowSegment
	return b
}
