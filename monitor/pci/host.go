// SPDX-License-Identifier: Apache-2.0

// Package pci is the machine's only PCI bus: a host bridge, up to 31 devices of
// one function, their configuration spaces by ports and by memory (ECAM), and
// the window of memory space in which their BARs answer.
//
// There is no port space, no bridge and no interrupt line: a device has BARs of
// 32-bit memory and sends its interrupts by MSI-X. Where BARs lie is chosen here
// at power-on, as firmware would, and is the guest's to change.
package pci

import (
	"slices"
	"sync"
	"sync/atomic"

	"vmctl/monitor/bus"
)

// Where it all is. The memory lies in the gap below 4 GiB.
const (
	AddressPort = 0xcf8 // the byte behind it is the machine's reset register
	DataPort    = 0xcfc
	DataPorts   = 4

	ECAMBase = 0xc0000000
	ECAMSize = 1 << 20 // of one bus

	// The window reaches to the interrupt chips: firmware places BARs from its end
	// downwards.
	WindowBase = ECAMBase + ECAMSize
	WindowEnd  = 0xfec00000
)

// Slots is how many the bus has; the first is the bridge's.
const Slots = 32

const (
	bridgeClass = 0x060000

	// Numbers that Linux knows as a plain host bridge without quirks.
	bridgeVendor = 0x1b36
	bridgeDevice = 0x0008
)

// Host is the bridge with its bus.
type Host struct {
	// What is behind a BAR may take its time, and is not to be taken away meanwhile.
	use sync.RWMutex // is locked before mu

	mu      sync.RWMutex // guards the functions' state
	devices [Slots]*Function
	address atomic.Uint32
}

// NewHost makes a bus with nothing but the bridge on it.
func NewHost() *Host {
	h := new(Host)
	h.devices[0] = NewFunction(ID{Vendor: bridgeVendor, Device: bridgeDevice, Class: bridgeClass})
	h.devices[0].freeze()
	return h
}

// Add puts a function into the lowest free slot, its BARs where nothing was placed, and
// returns the slot. errors.Is: ErrFull.
func (h *Host) Add(f *Function) (slot int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if slot = slices.Index(h.devices[:], nil); slot < 0 {
		return 0, ErrFull
	}
	return slot, h.put(slot, f)
}

// AddAt puts it into a slot. errors.Is: ErrFull when there is no such or it is not free.
func (h *Host) AddAt(slot int, f *Function) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if slot < 0 || slot >= Slots || h.devices[slot] != nil {
		return ErrFull
	}
	return h.put(slot, f)
}

func (h *Host) put(slot int, f *Function) error {
	if err := h.place(f); err != nil {
		return err
	}
	f.freeze()
	h.devices[slot] = f
	return nil
}

// Remove takes what is in a slot out of it. When it returns nobody is at its BARs any more.
func (h *Host) Remove(slot int) {
	h.use.Lock()
	defer h.use.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.devices[slot] = nil
}

// place gives each BAR the lowest address at which no other is at power-on.
func (h *Host) place(f *Function) error {
	for n, b := range f.bars {
		if b.dev == nil {
			continue
		}
		at := h.free(f, n, b.size)
		if at+uint64(b.size) > WindowEnd {
			return ErrFull
		}
		f.place(n, uint32(at))
	}
	return nil
}

func (h *Host) free(f *Function, before int, size uint32) uint64 {
	at := uint64(WindowBase)
	for moved := true; moved; {
		moved = false
		at = (at + uint64(size) - 1) &^ (uint64(size) - 1)
		avoid := func(space *[configSize]byte, bars []bar) {
			for n, b := range bars {
				base := uint64(order.Uint32(space[regBAR0+4*n:]))
				if b.dev != nil && at < base+uint64(b.size) && base < at+uint64(size) {
					at, moved = base+uint64(b.size), true
				}
			}
		}
		avoid(&f.space, f.bars[:before])
		for _, other := range h.devices {
			if other != nil {
				avoid(&other.fresh, other.bars[:])
			}
		}
	}
	return at
}

// Reset takes all functions back to power-on. The processors are parked.
func (h *Host) Reset() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.address.Store(0)
	for _, f := range h.devices {
		if f != nil {
			f.reset()
		}
	}
}

// Attach places the bus in the two address spaces of a machine.
func (h *Host) Attach(ports, memory *bus.Space) error {
	for _, p := range []struct {
		space      *bus.Space
		base, size uint64
		dev        bus.Device
	}{
		{ports, AddressPort, 1, (*addressPort)(h)},
		{ports, DataPort, DataPorts, (*dataPort)(h)},
		{memory, ECAMBase, ECAMSize, (*ecam)(h)},
		{memory, WindowBase, WindowEnd - WindowBase, (*window)(h)},
	} {
		if err := p.space.Add(p.base, p.size, p.dev); err != nil {
			return err
		}
	}
	return nil
}

// config answers an access to a configuration space. A function that is not
// there, and what is behind the 256 bytes of one that is, reads as all ones.
func (h *Host) config(slot, function, reg int, data []byte, write bool) {
	if function != 0 || slot >= Slots {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.devices[slot] == nil:
	case write:
		h.devices[slot].write(reg, data)
	default:
		h.devices[slot].read(reg, data)
	}
}

// addressPort is CONFIG_ADDRESS, which takes four bytes at once only.
type addressPort Host

const (
	addressEnable = 1 << 31
	addressBits   = addressEnable | 0x00fffffc
)

func (p *addressPort) Read(_ uint64, data []byte) {
	if len(data) == 4 {
		order.PutUint32(data, p.address.Load())
	}
}

func (p *addressPort) Write(_ uint64, data []byte) {
	if len(data) == 4 {
		p.address.Store(order.Uint32(data) & addressBits)
	}
}

// dataPort is CONFIG_DATA.
type dataPort Host

func (p *dataPort) Read(offset uint64, data []byte)  { p.access(offset, data, false) }
func (p *dataPort) Write(offset uint64, data []byte) { p.access(offset, data, true) }

func (p *dataPort) access(offset uint64, data []byte, write bool) {
	a := p.address.Load()
	if a&addressEnable == 0 || a>>16&0xff != 0 || offset+uint64(len(data)) > DataPorts {
		return
	}
	(*Host)(p).config(int(a>>11&31), int(a>>8&7), int(a&0xfc)+int(offset), data, write)
}

// ecam is the memory in which each function has a page of configuration space.
type ecam Host

func (e *ecam) Read(offset uint64, data []byte)  { e.access(offset, data, false) }
func (e *ecam) Write(offset uint64, data []byte) { e.access(offset, data, true) }

func (e *ecam) access(offset uint64, data []byte, write bool) {
	(*Host)(e).config(int(offset>>15), int(offset>>12&7), int(offset&0xfff), data, write)
}

// window is where the BARs answer.
type window Host

func (w *window) Read(offset uint64, data []byte) {
	w.use.RLock()
	defer w.use.RUnlock()
	if dev, at := w.find(offset, len(data)); dev != nil {
		dev.Read(at, data)
	}
}

func (w *window) Write(offset uint64, data []byte) {
	w.use.RLock()
	defer w.use.RUnlock()
	if dev, at := w.find(offset, len(data)); dev != nil {
		dev.Write(at, data)
	}
}

// find returns who answers. The lock is not held while it does: what a device
// does may take time.
func (w *window) find(offset uint64, size int) (bus.Device, uint64) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	for _, f := range w.devices {
		if f == nil {
			continue
		}
		if dev, at := f.find(WindowBase+offset, size); dev != nil {
			return dev, at
		}
	}
	return nil, 0
}
