// SPDX-License-Identifier: Apache-2.0

package abi

// Registers of a vCPU, by class. While another thread is in Run, all of these
// return unix.EBUSY.

// xsaveMin is the size of struct kvm_xsave in bytes. With more state enabled it
// is what KVMCapXsave2 says.
const xsaveMin = 4096

// Regs reads the general registers.
func (c *VCPU) Regs() (KVMRegs, error) {
	return get(&c.file, "vcpu-get-regs general", IOCVCPUGetRegs, RegsGeneral, KVMRegs{})
}

// SetRegs writes the general registers.
func (c *VCPU) SetRegs(r *KVMRegs) error {
	_, err := set(&c.file, "vcpu-set-regs general", IOCVCPUSetRegs, RegsGeneral, r)
	return err
}

// Sregs reads segments, tables and control registers.
func (c *VCPU) Sregs() (KVMSregs, error) {
	return get(&c.file, "vcpu-get-regs system", IOCVCPUGetRegs, RegsSystem, KVMSregs{})
}

// SetSregs writes segments, tables and control registers.
func (c *VCPU) SetSregs(r *KVMSregs) error {
	_, err := set(&c.file, "vcpu-set-regs system", IOCVCPUSetRegs, RegsSystem, r)
	return err
}

// FPU reads the x87 and SSE registers.
func (c *VCPU) FPU() (KVMFPU, error) {
	return get(&c.file, "vcpu-get-regs fpu", IOCVCPUGetRegs, RegsFPU, KVMFPU{})
}

// SetFPU writes the x87 and SSE registers.
func (c *VCPU) SetFPU(r *KVMFPU) error {
	_, err := set(&c.file, "vcpu-set-regs fpu", IOCVCPUSetRegs, RegsFPU, r)
	return err
}

// Xsave fills state with the extended state. Its length in bytes is what the VM's
// KVMCapXsave2 says, and 4096 at least.
func (c *VCPU) Xsave(state []byte) error {
	l := newList[none, byte](RegsXsave, max(len(state), xsaveMin))
	if _, err := c.call("vcpu-get-regs xsave", IOCVCPUGetRegs, l.arg()); err != nil {
		return err
	}
	copy(state, l.entries())
	return nil
}

// SetXsave writes the extended state, as Xsave gave it.
func (c *VCPU) SetXsave(state []byte) error {
	l := newList[none, byte](RegsXsave, max(len(state), xsaveMin))
	copy(l.entries(), state)
	_, err := c.call("vcpu-set-regs xsave", IOCVCPUSetRegs, l.arg())
	return err
}

// XCRs reads the extended control registers.
func (c *VCPU) XCRs() (KVMXCRs, error) {
	return get(&c.file, "vcpu-get-regs xcrs", IOCVCPUGetRegs, RegsXCRs, KVMXCRs{})
}

// SetXCRs writes the extended control registers.
func (c *VCPU) SetXCRs(r *KVMXCRs) error {
	_, err := set(&c.file, "vcpu-set-regs xcrs", IOCVCPUSetRegs, RegsXCRs, r)
	return err
}

// DebugRegs reads the debug registers.
func (c *VCPU) DebugRegs() (KVMDebugRegs, error) {
	return get(&c.file, "vcpu-get-regs debug", IOCVCPUGetRegs, RegsDebug, KVMDebugRegs{})
}

// SetDebugRegs writes the debug registers.
func (c *VCPU) SetDebugRegs(r *KVMDebugRegs) error {
	_, err := set(&c.file, "vcpu-set-regs debug", IOCVCPUSetRegs, RegsDebug, r)
	return err
}

// MSRs fills in Data of the entries whose Index is set, in order, and returns how
// many were done: KVM ends at the first that it does not know.
func (c *VCPU) MSRs(entries []KVMMSREntry) (int, error) {
	l := msrList(entries)
	n, err := c.call("vcpu-get-regs msrs", IOCVCPUGetRegs, l.arg())
	if err != nil {
		return 0, err
	}
	n = min(n, len(entries))
	copy(entries[:n], l.entries())
	return n, nil
}

// SetMSRs writes the entries in order and returns how many were done.
func (c *VCPU) SetMSRs(entries []KVMMSREntry) (int, error) {
	return c.call("vcpu-set-regs msrs", IOCVCPUSetRegs, msrList(entries).arg())
}

func msrList(entries []KVMMSREntry) *list[KVMMSRs, KVMMSREntry] {
	l := newList[KVMMSRs, KVMMSREntry](RegsMSRs, len(entries))
	l.head().NMSRs = uint32(len(entries))
	copy(l.entries(), entries)
	return l
}

// CPUID reads what CPUID tells the guest.
func (c *VCPU) CPUID() ([]KVMCPUIDEntry2, error) {
	l := newList[KVMCPUID2, KVMCPUIDEntry2](RegsCPUID, maxCPUID)
	l.head().Nent = maxCPUID
	if _, err := c.call("vcpu-get-regs cpuid", IOCVCPUGetRegs, l.arg()); err != nil {
		return nil, err
	}
	entries := l.entries()[:min(l.head().Nent, maxCPUID)]
	// KVM of Linux 6.1 does not write how many there are: what it did not fill
	// is zero, which no entry but the very first can be.
	for len(entries) > 0 && entries[len(entries)-1] == (KVMCPUIDEntry2{}) {
		entries = entries[:len(entries)-1]
	}
	return entries, nil
}

// SetCPUID says what CPUID is to tell the guest, before its first Run.
func (c *VCPU) SetCPUID(entries []KVMCPUIDEntry2) error {
	l := newList[KVMCPUID2, KVMCPUIDEntry2](RegsCPUID, len(entries))
	l.head().Nent = uint32(len(entries))
	copy(l.entries(), entries)
	_, err := c.call("vcpu-set-regs cpuid", IOCVCPUSetRegs, l.arg())
	return err
}

// LAPIC reads the local APIC.
func (c *VCPU) LAPIC() (KVMLAPICState, error) {
	return get(&c.file, "vcpu-get-regs lapic", IOCVCPUGetRegs, RegsLAPIC, KVMLAPICState{})
}

// SetLAPIC writes the local APIC.
func (c *VCPU) SetLAPIC(r *KVMLAPICState) error {
	_, err := set(&c.file, "vcpu-set-regs lapic", IOCVCPUSetRegs, RegsLAPIC, r)
	return err
}

// MPState reads whether the vCPU runs, halts or waits to be started.
func (c *VCPU) MPState() (uint32, error) {
	s, err := get(&c.file, "vcpu-get-regs mp-state", IOCVCPUGetRegs, RegsMPState, KVMMPState{})
	return s.MPState, err
}

// SetMPState writes one of KVMMPState....
func (c *VCPU) SetMPState(state uint32) error {
	_, err := set(&c.file, "vcpu-set-regs mp-state", IOCVCPUSetRegs, RegsMPState, &KVMMPState{MPState: state})
	return err
}

// Events reads the pending exceptions and interrupts.
func (c *VCPU) Events() (KVMVCPUEvents, error) {
	return get(&c.file, "vcpu-get-regs events", IOCVCPUGetRegs, RegsEvents, KVMVCPUEvents{})
}

// SetEvents writes the pending exceptions and interrupts.
func (c *VCPU) SetEvents(e *KVMVCPUEvents) error {
	_, err := set(&c.file, "vcpu-set-regs events", IOCVCPUSetRegs, RegsEvents, e)
	return err
}

// TSCKHz reads the rate of the time stamp counter.
func (c *VCPU) TSCKHz() (uint64, error) {
	return get(&c.file, "vcpu-get-regs tsc", IOCVCPUGetRegs, RegsTSCKHz, uint64(0))
}

// SetTSCKHz sets the rate of the time stamp counter.
func (c *VCPU) SetTSCKHz(khz uint64) error {
	_, err := set(&c.file, "vcpu-set-regs tsc", IOCVCPUSetRegs, RegsTSCKHz, &khz)
	return err
}

// KVMClockCtrl tells the guest that it was stopped for a while, so that its
// watchdog does not cry. errors.Is: unix.EINVAL when the guest has no kvmclock.
func (c *VCPU) KVMClockCtrl() error {
	_, err := set(&c.file, "vcpu-set-regs kvmclock-ctrl", IOCVCPUSetRegs, RegsKVMClockCtrl, &none{})
	return err
}
