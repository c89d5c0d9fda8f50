// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"encoding/binary"
	"unsafe"

	"vmctl/abi"
)

// KVM of Linux before 6.15 warns when a guest in system management mode shuts
// down on AMD's processors ("KVM: SVM: Forcibly leave SMM mode on SHUTDOWN
// interception"). Whoever has /dev/kvm can make it do so. To find the module's
// faults behind it, no call brings a vCPU into that mode.

const (
	deliverySMI  = 2 << 8 // delivery mode of a message, a pin or a local vector
	deliveryMask = 7 << 8
)

// tame takes out of an argument what brings a vCPU into that mode. It goes by the
// class that is there, which need not be the one that was meant.
func tame(req uintptr, arg []byte) {
	if len(arg) < headSize {
		return
	}
	class := binary.LittleEndian.Uint32(arg[4:])
	switch {
	case req == abi.IOCVMSetRoutes:
		tameRoutes(arg)
	case req == abi.IOCVMSignal && class == abi.SignalMSI:
		noSMI(arg, headSize+int(unsafe.Offsetof(abi.KVMMSI{}.Data)))
	case req == abi.IOCVMSetState && class == abi.StateIRQChip:
		tameChip(arg)
	case req == abi.IOCVCPUSetRegs && class == abi.RegsLAPIC:
		tameLAPIC(arg)
	case req == abi.IOCVCPUSetRegs && class == abi.RegsEvents:
		clearBits(arg, headSize+int(unsafe.Offsetof(abi.KVMVCPUEvents{}.Flags)), abi.KVMVCPUEventValidSMM)
	}
}

// alone says whether the argument must lie where no other thread writes: what it
// says is checked by us before, or would give a guest our own memory.
func alone(req uintptr) bool {
	switch req {
	case abi.IOCVMSetRoutes, abi.IOCVMSignal, abi.IOCVMSetState, abi.IOCVCPUSetRegs, abi.IOCVMMapMemory, unknownReq:
		return true
	}
	return false
}

// noSMI makes the delivery mode in a word another one.
func noSMI(arg []byte, off int) {
	if off+4 > len(arg) {
		return
	}
	if word := binary.LittleEndian.Uint32(arg[off:]); word&deliveryMask == deliverySMI {
		binary.LittleEndian.PutUint32(arg[off:], word&^deliveryMask)
	}
}

// clearBits clears bits of a byte.
func clearBits(arg []byte, off int, bits byte) {
	if off < len(arg) {
		arg[off] &^= bits
	}
}

// tameRoutes goes over the entries: each has its message in the same place.
func tameRoutes(arg []byte) {
	e := abi.KVMIRQRoutingEntry{}
	data := int(unsafe.Offsetof(e.U) + unsafe.Offsetof(abi.KVMIRQRoutingMSI{}.Data))
	for off := int(unsafe.Sizeof(abi.VMSetRoutes{})); off < len(arg); off += int(unsafe.Sizeof(e)) {
		noSMI(arg, off+data)
	}
}

// tameChip goes over what would be the pins of the I/O APIC.
func tameChip(arg []byte) {
	first := headSize + int(unsafe.Offsetof(abi.KVMIRQChip{}.Chip)+unsafe.Offsetof(abi.KVMIOAPICState{}.Redirtbl))
	for pin := range abi.KVMIOAPICNumPins {
		noSMI(arg, first+8*pin)
	}
}

// tameLAPIC goes over the local vectors and the command register.
func tameLAPIC(arg []byte) {
	for _, reg := range [...]int{0x2f0, 0x300, 0x320, 0x330, 0x340, 0x350, 0x360, 0x370} {
		noSMI(arg, headSize+reg)
	}
}
