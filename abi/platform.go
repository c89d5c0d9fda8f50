// SPDX-License-Identifier: Apache-2.0

package abi

import "unsafe"

// The commands that set up and drive the platform of a VM. Right: run.

// SetTSSAddr says where Intel's processors may keep three pages, as a guest
// physical address.
func (v *VM) SetTSSAddr(addr uint64) error {
	_, err := set(&v.file, "vm-setup tss", IOCVMSetup, SetupTSSAddr, &addr)
	return err
}

// SetIdentityMap says where Intel's processors may keep one page, as a guest
// physical address.
func (v *VM) SetIdentityMap(addr uint64) error {
	_, err := set(&v.file, "vm-setup identity map", IOCVMSetup, SetupIdentityMap, &addr)
	return err
}

// CreateIRQChip makes the in-kernel PICs and the I/O APIC, before any vCPU.
func (v *VM) CreateIRQChip() error {
	_, err := set(&v.file, "vm-setup irqchip", IOCVMSetup, SetupIRQChip, &none{})
	return err
}

// CreatePIT makes the in-kernel timer 8254, after CreateIRQChip.
func (v *VM) CreatePIT(config KVMPITConfig) error {
	_, err := set(&v.file, "vm-setup pit", IOCVMSetup, SetupPIT, &config)
	return err
}

// SetTSCKHz sets the rate of the time stamp counter for vCPUs made later.
func (v *VM) SetTSCKHz(khz uint64) error {
	_, err := set(&v.file, "vm-setup tsc", IOCVMSetup, SetupTSCKHz, &khz)
	return err
}

// EnableCap switches on one of the capabilities that vmm.h lists.
// errors.Is: unix.EOPNOTSUPP for any other.
func (v *VM) EnableCap(c KVMEnableCap) error {
	_, err := set(&v.file, "vm-setup cap", IOCVMSetup, SetupCap, &c)
	return err
}

// MapMemory maps, changes or, with a size of 0, unmaps a slot of guest memory.
// errors.Is: unix.ENOSPC beyond the limits, unix.EBUSY before the first vCPU.
func (v *VM) MapMemory(region KVMUserspaceMemoryRegion) error {
	m := VMMapMemory{Region: region}
	m.Size = uint32(unsafe.Sizeof(m))
	_, err := v.call("vm-map-memory", IOCVMMapMemory, unsafe.Pointer(&m))
	return err
}

// MapMMIO lets writes to a doorbell window signal an eventfd.
func (v *VM) MapMMIO(door KVMIOEventFD) error {
	m := VMMapMMIO{IOEventFD: door}
	m.Size = uint32(unsafe.Sizeof(m))
	_, err := v.call("vm-map-mmio", IOCVMMapMMIO, unsafe.Pointer(&m))
	return err
}

// MapIRQ lets an eventfd raise an interrupt.
func (v *VM) MapIRQ(irq KVMIRQFD) error {
	m := VMMapIRQ{IRQFD: irq}
	m.Size = uint32(unsafe.Sizeof(m))
	_, err := v.call("vm-map-irq", IOCVMMapIRQ, unsafe.Pointer(&m))
	return err
}

// SetRoutes replaces the whole table of interrupt routes, at most [MaxRoutes].
func (v *VM) SetRoutes(routes []KVMIRQRoutingEntry) error {
	l := newList[KVMIRQRouting, KVMIRQRoutingEntry](0, len(routes))
	l.head().Nr = uint32(len(routes))
	copy(l.entries(), routes)
	_, err := v.call("vm-set-routes", IOCVMSetRoutes, l.arg())
	return err
}

// SignalMSI raises a message signalled interrupt and returns to how many vCPUs it
// went.
func (v *VM) SignalMSI(msi KVMMSI) (int, error) {
	return set(&v.file, "vm-signal msi", IOCVMSignal, SignalMSI, &msi)
}

// SignalLine sets an interrupt line to level 0 or 1.
func (v *VM) SignalLine(irq, level uint32) error {
	_, err := set(&v.file, "vm-signal line", IOCVMSignal, SignalLine, &KVMIRQLevel{IRQ: irq, Level: level})
	return err
}

// IRQChip reads one of the chips KVMIRQChipPICMaster, PICSlave and IOAPIC.
func (v *VM) IRQChip(chip uint32) (KVMIRQChip, error) {
	return get(&v.file, "vm-get-state irqchip", IOCVMGetState, StateIRQChip, KVMIRQChip{ChipID: chip})
}

// SetIRQChip writes the chip that chip.ChipID names.
func (v *VM) SetIRQChip(chip *KVMIRQChip) error {
	_, err := set(&v.file, "vm-set-state irqchip", IOCVMSetState, StateIRQChip, chip)
	return err
}

// PIT reads the timer 8254.
func (v *VM) PIT() (KVMPITState2, error) {
	return get(&v.file, "vm-get-state pit", IOCVMGetState, StatePIT, KVMPITState2{})
}

// SetPIT writes the timer 8254.
func (v *VM) SetPIT(pit *KVMPITState2) error {
	_, err := set(&v.file, "vm-set-state pit", IOCVMSetState, StatePIT, pit)
	return err
}

// Clock reads the paravirtual clock, in nanoseconds.
func (v *VM) Clock() (KVMClockData, error) {
	return get(&v.file, "vm-get-state clock", IOCVMGetState, StateClock, KVMClockData{})
}

// SetClock writes the paravirtual clock.
func (v *VM) SetClock(clock *KVMClockData) error {
	_, err := set(&v.file, "vm-set-state clock", IOCVMSetState, StateClock, clock)
	return err
}
