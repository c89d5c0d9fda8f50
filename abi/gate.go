// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Forever is the deadline of a Pause that waits as long as it takes.
const Forever = ^uint64(0)

// Paused is what a pause found.
type Paused struct {
	Unsettled int // vCPUs whose last exit the monitor has not completed
	Running   int // vCPUs that may still run guest code; 0 when Pause returned nil
}

// Pause shuts the gate for a holder, and waits until no guest code runs or until
// the deadline, in nanoseconds of CLOCK_MONOTONIC. Right: control.
// errors.Is: unix.ETIMEDOUT and unix.EINTR (give the command again), with the gate
// shut; unix.ECANCELED (the holder was resumed meanwhile).
func (v *VM) Pause(holder Pause, deadline uint64) (Paused, error) {
	p := VMPause{Holder: holder, Deadline: deadline}
	p.Size = uint32(unsafe.Sizeof(p))
	_, errno := v.once(IOCVMPause, unsafe.Pointer(&p))
	got := Paused{int(p.Unsettled), int(p.Running)}
	if errno != 0 {
		return got, &Error{"vm-pause", errno}
	}
	return got, nil
}

// Resume ends a holder's pause; the last one opens the gate. Right: control.
// errors.Is: unix.EALREADY.
func (v *VM) Resume(holder Pause) error {
	r := VMResume{Holder: holder}
	r.Size = uint32(unsafe.Sizeof(r))
	_, err := v.call("vm-resume", IOCVMResume, unsafe.Pointer(&r))
	return err
}

// Pause shuts the gate of this vCPU alone and waits until no thread runs it.
// errors.Is: unix.EINTR, with the gate shut; unix.ECANCELED.
func (c *VCPU) Pause() error {
	if _, errno := c.once(IOCVCPUPause, nil); errno != 0 {
		return &Error{"vcpu-pause", errno}
	}
	return nil
}

// Resume ends [VCPU.Pause]. errors.Is: unix.EALREADY.
func (c *VCPU) Resume() error {
	_, err := c.call("vcpu-resume", IOCVCPUResume, nil)
	return err
}

// ConfigSet lowers the limits of a VM in state created; what is 0 stays. Right:
// control. errors.Is: unix.ENOSPC (above what the host allows).
func (v *VM) ConfigSet(c VMConfigSet) error {
	c.Size = uint32(unsafe.Sizeof(c))
	_, err := v.call("vm-config-set", IOCVMConfigSet, unsafe.Pointer(&c))
	return err
}

// DirtyLog reads and clears which pages of a slot were written since the last
// call: a bit a page. Right: run. errors.Is: unix.ENOENT (no such slot, or it is
// not logged).
func (v *VM) DirtyLog(slot uint32, pages int) ([]uint64, error) {
	words := make([]uint64, max(1, (pages+63)/64))
	d := VMDirtyLog{Log: KVMDirtyLog{Slot: slot, DirtyBitmap: uint64(uintptr(unsafe.Pointer(&words[0])))}}
	d.Size = uint32(unsafe.Sizeof(d))
	_, err := v.call("vm-dirty-log", IOCVMDirtyLog, unsafe.Pointer(&d))
	return words, err
}

// Stats asks what the module counts of the VM. Right: observe, as for the
// methods that follow.
func (v *VM) Stats() (VMStats, error) {
	return get(&v.file, "stats vm", IOCVMGetStats, StatsVM, VMStats{})
}

// VCPUStats asks what the module counts of a vCPU. errors.Is: unix.ENOENT.
func (v *VM) VCPUStats(index uint32) (VCPUStats, error) {
	return get(&v.file, "stats vcpu", IOCVMGetStats, StatsVCPU, VCPUStats{VCPU: index})
}

// kvmStatsRoom is more than KVM has of one VM or vCPU, in bytes.
const kvmStatsRoom = 64 << 10

// KVMStats reads KVM's binary statistics of a vCPU, or with [StatsOfVM] those of
// the VM: struct kvm_stats_header and what it points to.
// errors.Is: unix.ENOENT, unix.EBUSY (before Bind), unix.EOPNOTSUPP.
func (v *VM) KVMStats(vcpu uint32) ([]byte, error) {
	l := newList[KVMStats, byte](StatsKVM, kvmStatsRoom)
	*l.head() = KVMStats{VCPU: vcpu, Bytes: kvmStatsRoom}
	if _, err := v.call("stats kvm", IOCVMGetStats, l.arg()); err != nil {
		return nil, err
	}
	n := l.head().Bytes
	if n >= kvmStatsRoom {
		return nil, &Error{"stats kvm", unix.EOVERFLOW}
	}
	return l.entries()[:n], nil
}
