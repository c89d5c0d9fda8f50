// SPDX-License-Identifier: Apache-2.0

package abi

import "unsafe"

// RouteIRQChip is the route of a global interrupt to a pin of one of the chips
// KVMIRQChipPICMaster, PICSlave and IOAPIC.
func RouteIRQChip(gsi, chip, pin uint32) KVMIRQRoutingEntry {
	e := KVMIRQRoutingEntry{GSI: gsi, Type: KVMIRQRouteIRQChip}
	*(*KVMIRQRoutingIRQChip)(unsafe.Pointer(&e.U)) = KVMIRQRoutingIRQChip{IRQChip: chip, Pin: pin}
	return e
}

// RouteMSI is the route of a global interrupt to a message.
func RouteMSI(gsi uint32, addr uint64, data uint32) KVMIRQRoutingEntry {
	e := KVMIRQRoutingEntry{GSI: gsi, Type: KVMIRQRouteMSI}
	*(*KVMIRQRoutingMSI)(unsafe.Pointer(&e.U)) = KVMIRQRoutingMSI{
		AddressLo: uint32(addr), AddressHi: uint32(addr >> 32), Data: data,
	}
	return e
}

// PIC is the state of a chip whose ChipID is KVMIRQChipPICMaster or PICSlave.
func (c *KVMIRQChip) PIC() *KVMPICState { return (*KVMPICState)(unsafe.Pointer(&c.Chip)) }

// IOAPIC is the state of the chip whose ChipID is KVMIRQChipIOAPIC.
func (c *KVMIRQChip) IOAPIC() *KVMIOAPICState { return (*KVMIOAPICState)(unsafe.Pointer(&c.Chip)) }
