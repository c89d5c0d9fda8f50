// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"errors"
	"io"

	"vmctl/monitor/acpi"
	"vmctl/monitor/legacy"
	"vmctl/monitor/mem"
	"vmctl/monitor/pci"
)

// What lies where in low memory before the kernel takes over.
const (
	gdtAddr     = 0x500
	zeroPage    = 0x7000 // boot_params
	stackTop    = 0x8ff0
	pml4Addr    = 0x9000
	pdptAddr    = 0xa000
	pdAddr      = 0xb000 // four pages: 4 GiB
	cmdlineAddr = 0x20000
	biosStart   = 0xffff0 // where a PC's firmware begins, F000:FFF0
	ebdaAddr    = 0x9fc00
	lowRAMEnd   = 0xa0000
)

// Fields of boot_params beside the setup header.
const (
	bpACPI       = 0x70
	bpRamdiskExt = 0xc0
	bpSizeExt    = 0xc4
	bpE820Count  = 0x1e8
	bpE820       = 0x2d0
	bpSize       = 4096

	loaderUnknown = 0xff
	e820RAM       = 1
	e820Reserved  = 2
)

// Image is what a machine boots: it can be loaded again and again.
type Image struct {
	Kernel     *Kernel
	Initrd     io.ReaderAt // nil: none
	InitrdSize int64
	Cmdline    string
	Tables     *acpi.Tables
}

// Check reports whether the image fits into memory, without touching it.
// errors.Is: ErrKernelTooBig, ErrInitrdTooBig, ErrCmdline.
func (im *Image) Check(m *mem.Memory) error {
	if err := im.Kernel.CheckCmdline(im.Cmdline); err != nil {
		return err
	}
	if im.Kernel.end > m.LowEnd() {
		return ErrKernelTooBig
	}
	_, err := im.initrdAddr(m)
	return err
}

// Generation is where the generation of the machine goes: see acpi.Tables.
func (im *Image) Generation() uint64 { return im.Tables.Generation }

// initrdAddr is as high as memory and the kernel allow, on a page; the kernel
// needs what is below.
func (im *Image) initrdAddr(m *mem.Memory) (uint64, error) {
	if im.Initrd == nil {
		return 0, nil
	}
	const page = 4096
	top := min(m.LowEnd(), im.Kernel.initrdMax+1)
	size := uint64(im.InitrdSize)
	if im.InitrdSize < 0 || size > top || (top-size)&^(page-1) < im.Kernel.end {
		return 0, ErrInitrdTooBig
	}
	return (top - size) &^ (page - 1), nil
}

// Load puts all that the kernel expects into memory, which is zero, and returns
// where the boot processor begins. The files are read straight into guest
// memory. errors.Is: those of Check, ErrCutKernel when a file has shrunk, and
// those of the files.
func (im *Image) Load(m *mem.Memory) (Entry, error) {
	if err := im.Check(m); err != nil {
		return Entry{}, err
	}
	k := im.Kernel
	for _, p := range k.parts {
		if err := readInto(m, p.addr, k.file, p.off, p.size); err != nil {
			return Entry{}, err
		}
	}
	at, err := im.initrdAddr(m)
	if err != nil {
		return Entry{}, err
	}
	if im.Initrd != nil {
		if err := readInto(m, at, im.Initrd, 0, uint64(im.InitrdSize)); err != nil {
			return Entry{}, err
		}
	}
	for _, write := range []func() error{
		func() error { return m.Write(cmdlineAddr, append([]byte(im.Cmdline), 0)) },
		func() error { return im.Tables.Write(m.Write) },
		func() error { return m.Write(biosStart, biosCode()) },
	} {
		if err := write(); err != nil {
			return Entry{}, err
		}
	}
	if k.pvh {
		return im.enterPVH(m, at)
	}
	return im.enterLinux(m, at)
}

// enterLinux makes what a bzImage expects beside that.
func (im *Image) enterLinux(m *mem.Memory, initrd uint64) (Entry, error) {
	err := errors.Join(
		m.Write(zeroPage, im.bootParams(m, initrd)),
		writePageTables(m),
		m.Write(gdtAddr, gdt(desc64, descTask)),
	)
	return Entry{Regs: enterRegs(im.Kernel.entry), Set: enterSregs}, err
}

// biosCode is all the firmware there is: it resets the machine. Linux on a
// hardware-reduced machine does not use ACPI's reset register; it tries EFI, and
// without it goes to where the firmware begins.
func biosCode() []byte {
	return []byte{
		0xba, byte(legacy.ResetPort & 0xff), byte(legacy.ResetPort >> 8), // mov dx, ResetPort
		0xb0, legacy.ResetValue, // mov al, ResetValue
		0xee,       // out dx, al
		0xf4,       // hlt
		0xeb, 0xfd, // jmp to hlt
	}
}

func readInto(m *mem.Memory, addr uint64, file io.ReaderAt, off int64, size uint64) error {
	dst, err := m.At(addr, size)
	if err != nil {
		return err
	}
	return readFull(file, dst, off)
}

// bootParams makes the "zero page".
func (im *Image) bootParams(m *mem.Memory, initrd uint64) []byte {
	b := make([]byte, bpSize)
	copy(b[offSetupSects:], im.Kernel.header)
	b[offLoader] = loaderUnknown
	order.PutUint32(b[offCmdline:], cmdlineAddr)
	order.PutUint64(b[bpACPI:], acpi.Base)
	if im.Initrd != nil {
		order.PutUint32(b[offRamdiskImage:], uint32(initrd))
		order.PutUint32(b[bpRamdiskExt:], uint32(initrd>>32))
		order.PutUint32(b[offRamdiskSize:], uint32(im.InitrdSize))
		order.PutUint32(b[bpSizeExt:], uint32(uint64(im.InitrdSize)>>32))
	}
	n := 0
	for _, e := range e820(m) {
		at := b[bpE820+n*20:]
		order.PutUint64(at, e.addr)
		order.PutUint64(at[8:], e.size)
		order.PutUint32(at[16:], e.kind)
		n++
	}
	b[bpE820Count] = byte(n)
	return b
}

type e820Entry struct {
	addr, size uint64
	kind       uint32
}

// e820 is the map of memory that a BIOS would give.
func e820(m *mem.Memory) []e820Entry {
	list := []e820Entry{
		{0, ebdaAddr, e820RAM},
		{ebdaAddr, lowRAMEnd - ebdaAddr, e820Reserved},
		{acpi.Base, acpi.End - acpi.Base, e820Reserved},
		{lowest, m.LowEnd() - lowest, e820RAM},
		// Linux uses it only where it is reserved.
		{pci.ECAMBase, pci.ECAMSize, e820Reserved},
	}
	for _, r := range m.Regions()[1:] {
		list = append(list, e820Entry{r.Base, r.Len(), e820RAM})
	}
	return list
}

// writePageTables maps the first 4 GiB one to one, in pages of 2 MiB.
func writePageTables(m *mem.Memory) error {
	const (
		present, writable, large = 1 << 0, 1 << 1, 1 << 7
		table, perTable, pds     = 4096, 512, 4
	)
	b, err := m.At(pml4Addr, pdAddr+pds*table-pml4Addr)
	if err != nil {
		return err
	}
	order.PutUint64(b, pdptAddr|present|writable)
	for i := range uint64(pds) {
		order.PutUint64(b[pdptAddr-pml4Addr+i*8:], pdAddr+i*table|present|writable)
	}
	for i := range uint64(pds * perTable) {
		order.PutUint64(b[pdAddr-pml4Addr+i*8:], i<<21|present|writable|large)
	}
	return nil
}
