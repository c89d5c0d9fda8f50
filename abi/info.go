// SPDX-License-Identifier: Apache-2.0

package abi

// Bounds of the lists that the kernel is asked for. KVM knows 256 CPUID entries
// at most (KVM_MAX_CPUID_ENTRIES) and a few hundred MSRs.
const (
	maxCPUID = 256
	maxMSRs  = 4096
)

// ABIInfo asks what the module speaks.
func (f *file) ABIInfo() (ABIInfo, error) {
	return get(f, "info abi", IOCGetInfo, InfoABI, ABIInfo{})
}

// Limits asks what a VM may have at most.
func (f *file) Limits() (LimitsInfo, error) {
	return get(f, "info limits", IOCGetInfo, InfoLimits, LimitsInfo{})
}

// RunSize asks for the length of a vCPU's run area, in bytes.
func (f *file) RunSize() (int, error) {
	i, err := get(f, "info run size", IOCGetInfo, InfoRunSize, RunSizeInfo{})
	return int(i.Bytes), err
}

// SupportedCPUID asks which CPUID entries KVM supports on this host.
func (f *file) SupportedCPUID() ([]KVMCPUIDEntry2, error) {
	l := newList[KVMCPUID2, KVMCPUIDEntry2](InfoKVMCPUID, maxCPUID)
	l.head().Nent = maxCPUID
	if _, err := f.call("info cpuid", IOCGetInfo, l.arg()); err != nil {
		return nil, err
	}
	return l.entries()[:min(l.head().Nent, maxCPUID)], nil
}

// MSRList asks which MSRs hold state that is to be saved.
func (f *file) MSRList() ([]uint32, error) {
	l := newList[KVMMSRList, uint32](InfoKVMMSRs, maxMSRs)
	l.head().NMSRs = maxMSRs
	if _, err := f.call("info msrs", IOCGetInfo, l.arg()); err != nil {
		return nil, err
	}
	return l.entries()[:min(l.head().NMSRs, maxMSRs)], nil
}

// vmInfo asks about the VM that the descriptor belongs to.
func (f *file) vmInfo() (VMInfo, error) {
	return get(f, "info vm", IOCGetInfo, InfoVM, VMInfo{})
}

// NameString returns the name without the zeros behind it.
func (i *VMInfo) NameString() string {
	for n, b := range i.Name {
		if b == 0 {
			return string(i.Name[:n])
		}
	}
	return string(i.Name[:])
}
