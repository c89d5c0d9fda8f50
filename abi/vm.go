// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// VM is a descriptor of a virtual machine, with some of its rights.
type VM struct{ file }

// NewVM takes over a VM descriptor, as it came over a socket.
func NewVM(fd int) *VM {
	v := new(VM)
	v.fd.Store(int32(fd))
	return v
}

// Info asks for the facts about the VM, in any state.
func (v *VM) Info() (VMInfo, error) { return v.vmInfo() }

// CheckExtension asks what KVM says about one of its capabilities on this VM: 0
// when it is not there.
func (v *VM) CheckExtension(capability uint32) (int, error) {
	i, err := get(&v.file, "info kvm extension", IOCGetInfo, InfoKVMExtension, KVMExtensionInfo{Extension: capability})
	return int(i.Value), err
}

// Delegate makes a descriptor of the same VM with fewer rights. Right: delegate.
// errors.Is: unix.EACCES also for a right that this descriptor does not have.
func (v *VM) Delegate(rights Right) (*VM, error) {
	d := VMDelegate{Rights: rights, FD: closed}
	d.Size = uint32(unsafe.Sizeof(d))
	if _, err := v.call("vm-delegate", IOCVMDelegate, unsafe.Pointer(&d)); err != nil {
		return nil, err
	}
	return NewVM(int(d.FD)), nil
}

// Stop ends the VM; no guest instruction begins after it returned nil. Right:
// control. errors.Is: unix.EINTR when a signal came while a vCPU was on its way
// out (the VM is stopped all the same), unix.ESHUTDOWN the second time.
func (v *VM) Stop() error {
	f := VMFlags{Size: uint32(unsafe.Sizeof(VMFlags{}))}
	if _, errno := v.once(IOCVMStop, unsafe.Pointer(&f)); errno != 0 {
		return &Error{"vm-stop", errno}
	}
	return nil
}

// Destroy stops the VM and takes it out of the inventory. Right: control.
// errors.Is: unix.EINTR as for Stop.
func (v *VM) Destroy() error {
	f := VMFlags{Size: uint32(unsafe.Sizeof(VMFlags{}))}
	if _, errno := v.once(IOCVMDestroy, unsafe.Pointer(&f)); errno != 0 {
		return &Error{"vm-destroy", errno}
	}
	return nil
}

// Bind makes the calling process the monitor. Right: run. State: created.
func (v *VM) Bind() error {
	f := VMFlags{Size: uint32(unsafe.Sizeof(VMFlags{}))}
	_, err := v.call("vm-bind", IOCVMBind, unsafe.Pointer(&f))
	return err
}

// Report says what became of the guest: the monitor's claim. [ReasonReset]
// changes no state, every other reason stops the VM. Right: run.
func (v *VM) Report(reason Reason, data [4]uint64) error {
	r := VMReport{Reason: reason, Data: data}
	r.Size = uint32(unsafe.Sizeof(r))
	_, err := v.call("vm-report", IOCVMReport, unsafe.Pointer(&r))
	return err
}

// CreateVCPU makes the vCPU with that number, which is its initial APIC id.
// Right: run. All vCPUs are made before the first MapMemory.
// errors.Is: unix.EEXIST, unix.ENOSPC.
func (v *VM) CreateVCPU(index uint32) (*VCPU, error) {
	c := VCPUCreate{Index: index, FD: closed}
	c.Size = uint32(unsafe.Sizeof(c))
	if _, err := v.call("vcpu-create", IOCVCPUCreate, unsafe.Pointer(&c)); err != nil {
		return nil, err
	}
	return NewVCPU(int(c.FD)), nil
}

// Poll waits until the VM is stopped or timeoutMillis have passed (-1: for ever),
// and reports whether it is stopped. Any right will do.
// errors.Is: unix.EINTR.
func (v *VM) Poll(timeoutMillis int) (stopped bool, err error) {
	fds := []unix.PollFd{{Fd: v.fd.Load()}}
	if _, err := unix.Poll(fds, timeoutMillis); err != nil {
		return false, &Error{"vm-poll", err.(unix.Errno)}
	}
	return fds[0].Revents&unix.POLLHUP != 0, nil
}
