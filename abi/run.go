// SPDX-License-Identifier: Apache-2.0

package abi

import "unsafe"

// The structures that lie over KVMRun.Exit, one for each exit reason. C gives
// them no name, so they are written here; the layout test holds them against
// <linux/kvm.h>.

// RunIO belongs to KVMExitIO.
type RunIO struct {
	Direction  uint8 // KVMExitIOIn or KVMExitIOOut
	Size       uint8 // of one access: 1, 2 or 4 bytes
	Port       uint16
	Count      uint32 // accesses
	DataOffset uint64 // bytes from the start of the run area
}

// RunMMIO belongs to KVMExitMMIO.
type RunMMIO struct {
	PhysAddr uint64
	Data     [8]byte
	Len      uint32 // bytes of Data
	IsWrite  uint8
	_        [3]uint8
}

// RunFailEntry belongs to KVMExitFailEntry.
type RunFailEntry struct {
	HardwareEntryFailureReason uint64
	CPU                        uint32
	_                          uint32
}

// RunInternalError belongs to KVMExitInternalError.
type RunInternalError struct {
	Suberror uint32 // KVMInternalError...
	NData    uint32 // words of Data
	Data     [16]uint64
}

// RunSystemEvent belongs to KVMExitSystemEvent.
type RunSystemEvent struct {
	Type  uint32 // KVMSystemEvent...
	NData uint32 // words of Data
	Data  [16]uint64
}

func (r *KVMRun) exit() unsafe.Pointer { return unsafe.Pointer(&r.Exit) }

// IO is the port access of KVMExitIO; its bytes are [VCPU.IOData].
func (r *KVMRun) IO() *RunIO { return (*RunIO)(r.exit()) }

// MMIO is the memory access of KVMExitMMIO.
func (r *KVMRun) MMIO() *RunMMIO { return (*RunMMIO)(r.exit()) }

// FailEntry is what the hardware said at KVMExitFailEntry.
func (r *KVMRun) FailEntry() *RunFailEntry { return (*RunFailEntry)(r.exit()) }

// InternalError is what KVM said at KVMExitInternalError.
func (r *KVMRun) InternalError() *RunInternalError { return (*RunInternalError)(r.exit()) }

// SystemEvent is what happened at KVMExitSystemEvent.
func (r *KVMRun) SystemEvent() *RunSystemEvent { return (*RunSystemEvent)(r.exit()) }

// IOData is the data of a port access, Size times Count bytes in the run area:
// what the guest wrote, or what it is to read. It is nil when the run area does
// not hold that many.
func (c *VCPU) IOData() []byte {
	if c.area == nil {
		return nil
	}
	io := c.RunArea().IO()
	size := uint64(io.Size) * uint64(io.Count)
	if io.DataOffset > uint64(len(c.area)) || size > uint64(len(c.area))-io.DataOffset {
		return nil
	}
	return c.area[io.DataOffset:][:size:size]
}
