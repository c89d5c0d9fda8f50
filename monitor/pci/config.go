// SPDX-License-Identifier: Apache-2.0

package pci

import (
	"encoding/binary"
	"errors"

	"vmctl/monitor/bus"
)

// Registers of the header, type 0 (PCI 3.0, 6.1).
const (
	regVendor    = 0x00
	regDevice    = 0x02
	regCommand   = 0x04
	regStatus    = 0x06
	regRevision  = 0x08
	regClass     = 0x09 // three bytes
	regBAR0      = 0x10
	regSubVendor = 0x2c
	regSubsystem = 0x2e
	regCaps      = 0x34
	regIRQLine   = 0x3c
	headerSize   = 0x40

	configSize = 256
	numBARs    = 6

	commandMemory    = 1 << 1
	commandMaster    = 1 << 2
	commandNoINTx    = 1 << 10
	statusCaps       = 1 << 4
	minBAR           = 16
	capHead          = 2 // bytes: id and link
	capAlign         = 4
	writableCommands = commandMemory | commandMaster | commandNoINTx
)

var order = binary.LittleEndian

var (
	// ErrFull is a configuration space without room for a capability, or a
	// machine without a free slot or a free address.
	ErrFull = errors.New("pci: no room left")
	// ErrBAR is a BAR that cannot be.
	ErrBAR = errors.New("pci: size or number of a BAR")
)

// ID says what a function is.
type ID struct {
	Vendor, Device       uint16
	SubVendor, Subsystem uint16
	Class                uint32 // base class, class, interface
	Revision             uint8
}

// Function is one device as the bus sees it: its configuration space. It is
// built before the guest runs; from then on the host calls it, under its lock.
type Function struct {
	space    [configSize]byte
	writable [configSize]byte // the bits that the guest may change
	fresh    [configSize]byte // space as it is at power-on
	bars     [numBARs]bar
	hooks    []hook
	next     int // where the next capability goes
	link     int // what is to point to it
	msix     *MSIX
	owner    Owner
}

// bar is a window of memory space that a device answers in.
type bar struct {
	size uint32
	dev  bus.Device
}

// hook is a device that takes part in accesses to some bytes of its space.
type hook struct {
	first, end int
	c          Capability
}

// Owner is the device behind a function, as far as it follows the bus.
type Owner interface {
	// Moved is called after the guest changed where the BARs are, or whether they
	// answer. The function's state is at rest.
	Moved()
	// Reset is called when the machine is reset.
	Reset()
}

// Capability is told of accesses to its body. Offsets are from the begin of the
// capability.
type Capability interface {
	// Reading is called before bytes are read; it may change body.
	Reading(body []byte, offset, size int)
	// Written is called after bytes were written, as far as the mask allows it.
	Written(body []byte, offset, size int)
}

// NewFunction makes a function without BARs and capabilities.
func NewFunction(id ID) *Function {
	f := &Function{next: headerSize, link: regCaps}
	order.PutUint16(f.space[regVendor:], id.Vendor)
	order.PutUint16(f.space[regDevice:], id.Device)
	order.PutUint16(f.space[regSubVendor:], id.SubVendor)
	order.PutUint16(f.space[regSubsystem:], id.Subsystem)
	order.PutUint32(f.space[regRevision:], id.Class<<8|uint32(id.Revision))
	order.PutUint16(f.writable[regCommand:], writableCommands)
	f.writable[regIRQLine] = 0xff // a note between firmware and drivers
	return f
}

// SetBAR gives the function a window of 32-bit memory space, not prefetchable,
// whose size is a power of two. errors.Is: ErrBAR.
func (f *Function) SetBAR(n int, size uint32, dev bus.Device) error {
	if n < 0 || n >= numBARs || size < minBAR || size&(size-1) != 0 || f.bars[n].dev != nil {
		return ErrBAR
	}
	f.bars[n] = bar{size, dev}
	order.PutUint32(f.writable[regBAR0+4*n:], -size)
	return nil
}

// Own makes known who is behind the function.
func (f *Function) Own(o Owner) { f.owner = o }

// AddCapability appends a capability: body is what follows its id and link, and
// writable the bits of body that the guest may change. c may be nil. It returns
// where the capability is. errors.Is: ErrFull.
func (f *Function) AddCapability(id uint8, body, writable []byte, c Capability) (int, error) {
	at, end := f.next, f.next+capHead+len(body)
	if end > configSize {
		return 0, ErrFull
	}
	f.space[at] = id
	copy(f.space[at+capHead:end], body)
	copy(f.writable[at+capHead:end], writable)
	f.space[f.link] = byte(at)
	f.space[regStatus] |= statusCaps
	f.link, f.next = at+1, (end+capAlign-1)&^(capAlign-1)
	if c != nil {
		f.hooks = append(f.hooks, hook{at, end, c})
	}
	return at, nil
}

// freeze takes down the state of power-on.
func (f *Function) freeze() { f.fresh = f.space }

// reset goes back to it.
func (f *Function) reset() {
	f.space = f.fresh
	if f.owner != nil {
		f.owner.Moved()
		f.owner.Reset()
	}
	if f.msix != nil {
		f.msix.Reset()
	}
}

// BAR says where a window is, and whether it answers there.
func (f *Function) BAR(n int) (addr uint64, on bool) {
	addr = uint64(order.Uint32(f.space[regBAR0+4*n:]))
	on = order.Uint16(f.space[regCommand:])&commandMemory != 0 && f.bars[n].dev != nil
	return addr, on && addr >= WindowBase && addr+uint64(f.bars[n].size) <= WindowEnd
}

// place puts a window at an address, as firmware would.
func (f *Function) place(n int, addr uint32) { order.PutUint32(f.space[regBAR0+4*n:], addr) }

// find returns the window that has size bytes at an address.
func (f *Function) find(addr uint64, size int) (dev bus.Device, offset uint64) {
	for n := range f.bars {
		base, on := f.BAR(n)
		if off := addr - base; on && addr >= base && off+uint64(size) <= uint64(f.bars[n].size) {
			return f.bars[n].dev, off
		}
	}
	return nil, 0
}

// read fills data from a register on. Behind the end are all ones.
func (f *Function) read(reg int, data []byte) {
	for _, h := range f.hooks {
		if reg < h.end && reg+len(data) > h.first {
			h.c.Reading(f.space[h.first:h.end], reg-h.first, len(data))
		}
	}
	if reg < configSize {
		copy(data, f.space[reg:])
	}
}

// write changes the bits that may be changed.
func (f *Function) write(reg int, data []byte) {
	for i, v := range data {
		if at := reg + i; at < configSize {
			w := f.writable[at]
			f.space[at] = f.space[at]&^w | v&w
		}
	}
	for _, h := range f.hooks {
		if reg < h.end && reg+len(data) > h.first {
			h.c.Written(f.space[h.first:h.end], reg-h.first, len(data))
		}
	}
	isBAR := reg < regBAR0+4*numBARs && reg+len(data) > regBAR0
	isCommand := reg < regCommand+2 && reg+len(data) > regCommand
	if f.owner != nil && (isBAR || isCommand) {
		f.owner.Moved()
	}
}
