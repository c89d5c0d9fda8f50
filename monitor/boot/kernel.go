// SPDX-License-Identifier: Apache-2.0

// Package boot puts a kernel into guest memory and makes the state in which its
// protocol wants the processors, entered directly, without firmware: a bzImage by
// Linux's in 64-bit mode, an ELF by PVH's in 32-bit mode. Kernel and initrd are files
// of somebody else and hostile.
package boot

import (
	"encoding/binary"
	"errors"
	"io"

	"vmctl/monitor/spec"
)

// Errors of a kernel or initrd that cannot be booted.
var (
	ErrNotKernel    = errors.New("neither a bzImage nor an ELF")
	ErrCutKernel    = errors.New("kernel file is shorter than its header says")
	ErrOldKernel    = errors.New("kernel is older than boot protocol 2.12")
	ErrNot64Bit     = errors.New("kernel has no 64-bit entry")
	ErrNoEntry      = errors.New("ELF has no note with the entry of a PVH kernel")
	ErrKernelHeader = errors.New("kernel header contradicts itself")
	ErrKernelTooBig = errors.New("kernel does not fit into memory")
	ErrInitrdTooBig = errors.New("initrd does not fit into memory beside the kernel")
	ErrCmdline      = errors.New("command line is longer than the kernel takes")
)

// Offsets into the first sectors of a bzImage (Documentation/arch/x86/boot.rst),
// which are the offsets into boot_params too.
const (
	offSetupSects     = 0x1f1
	offJump           = 0x201
	offMagic          = 0x202
	offVersion        = 0x206
	offLoader         = 0x210
	offLoadFlags      = 0x211
	offRamdiskImage   = 0x218
	offRamdiskSize    = 0x21c
	offCmdline        = 0x228
	offInitrdMax      = 0x22c
	offAlignment      = 0x230
	offRelocatable    = 0x234
	offXLoadFlags     = 0x236
	offCmdlineSize    = 0x238
	offPrefAddress    = 0x258
	offInitSize       = 0x260
	headerEnd         = 0x264 // of protocol 2.12
	sector            = 512
	maxSetupHeader    = 0x290 // where boot_params goes on with other things
	magic             = "HdrS"
	minVersion        = 0x020c
	loadedHigh        = 1 << 0
	xloadKernel64     = 1 << 0
	entry64           = 0x200
	defaultSetupSects = 4
)

// lowest is where a kernel may begin; below are the tables of boot.
const lowest = 1 << 20

var order = binary.LittleEndian

// Kernel is one whose headers were found right.
type Kernel struct {
	file       io.ReaderAt
	parts      []part
	header     []byte // of a bzImage, from offSetupSects on
	pvh        bool
	entry      uint64
	end        uint64 // the first address behind what it needs while it starts
	initrdMax  uint64 // highest address of an initrd's last byte
	cmdlineMax uint64
}

// part is bytes of the file and where they go.
type part struct {
	addr uint64
	off  int64
	size uint64
}

// ParseKernel reads the headers of a kernel of size bytes. errors.Is: the errors
// of this package, and those of the file.
func ParseKernel(file io.ReaderAt, size int64) (*Kernel, error) {
	head := make([]byte, 2*sector)
	if size < int64(len(head)) {
		return nil, ErrNotKernel
	}
	if err := readFull(file, head, 0); err != nil {
		return nil, err
	}
	if string(head[:len(elfMagic)]) == elfMagic {
		return parseELF(file, size, head)
	}
	if string(head[offMagic:][:len(magic)]) != magic {
		return nil, ErrNotKernel
	}
	if order.Uint16(head[offVersion:]) < minVersion {
		return nil, ErrOldKernel
	}
	if head[offLoadFlags]&loadedHigh == 0 || order.Uint16(head[offXLoadFlags:])&xloadKernel64 == 0 {
		return nil, ErrNot64Bit
	}
	end := int(offMagic) + int(head[offJump])
	if end < headerEnd || end > maxSetupHeader {
		return nil, ErrKernelHeader
	}
	k := &Kernel{
		file:       file,
		header:     head[offSetupSects:end],
		initrdMax:  uint64(order.Uint32(head[offInitrdMax:])),
		cmdlineMax: uint64(order.Uint32(head[offCmdlineSize:])),
	}
	return k, k.place(head, size)
}

// place finds the payload in the file and checks where it wants to be.
func (k *Kernel) place(head []byte, size int64) error {
	sects := int64(head[offSetupSects])
	if sects == 0 {
		sects = defaultSetupSects
	}
	payload := (sects + 1) * sector
	if payload+entry64 >= size {
		return ErrCutKernel
	}
	payloadSize := uint64(size - payload)
	addr, initSize := order.Uint64(head[offPrefAddress:]), uint64(order.Uint32(head[offInitSize:]))
	align := uint64(order.Uint32(head[offAlignment:]))
	switch {
	case align == 0 || align&(align-1) != 0 || addr%align != 0:
		return ErrKernelHeader
	case addr < lowest || addr >= 1<<32:
		return ErrKernelHeader
	case initSize < payloadSize:
		// It unpacks itself in place: a header that asks for less than the file
		// has was cut or made up.
		return ErrKernelHeader
	}
	k.parts = []part{{addr, payload, payloadSize}}
	k.entry, k.end = addr+entry64, addr+initSize
	return nil
}

// CheckCmdline reports whether the kernel takes a command line. errors.Is:
// ErrCmdline.
func (k *Kernel) CheckCmdline(cmdline string) error {
	if uint64(len(cmdline)) > k.cmdlineMax || len(cmdline) > spec.MaxCmdline {
		return ErrCmdline
	}
	return nil
}

// readFull fills p from the file.
func readFull(file io.ReaderAt, p []byte, off int64) error {
	n, err := file.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		return ErrCutKernel
	}
	return err
}
