// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// VCPU is a descriptor of a virtual processor and, after MapRun, its run area.
type VCPU struct {
	file
	area []byte
}

// NewVCPU takes over a vCPU descriptor.
func NewVCPU(fd int) *VCPU {
	c := new(VCPU)
	c.fd.Store(int32(fd))
	return c
}

// MapRun maps the run area, which stays until Close.
func (c *VCPU) MapRun() error {
	size, err := c.RunSize()
	if err != nil {
		return err
	}
	if size < int(unsafe.Sizeof(KVMRun{})) {
		return &Error{"vcpu-mmap", unix.EOVERFLOW}
	}
	area, err := unix.Mmap(c.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return &Error{"vcpu-mmap", err.(unix.Errno)}
	}
	c.area = area
	return nil
}

// Close unmaps the run area and closes the descriptor. Nothing that RunArea,
// IO or another accessor returned may be used afterwards.
func (c *VCPU) Close() error {
	if c.area != nil {
		if err := unix.Munmap(c.area); err != nil {
			return &Error{"vcpu-munmap", err.(unix.Errno)}
		}
		c.area = nil
	}
	return c.file.Close()
}

// RunArea returns what the vCPU shares with the kernel, or nil before MapRun.
func (c *VCPU) RunArea() *KVMRun {
	if c.area == nil {
		return nil
	}
	return (*KVMRun)(unsafe.Pointer(&c.area[0]))
}

// Run lets the guest run until it needs its monitor; the run area says why it
// came back. It allocates nothing and returns a bare [unix.Errno]: unix.EINTR
// (a signal, or Kick), unix.EBUSY (another thread runs this vCPU),
// unix.ESHUTDOWN. Run is for a goroutine that is locked to its thread.
func (c *VCPU) Run() error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(c.fd.Load()), IOCVCPURun, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// Kick makes the running, or else the next, Run return unix.EINTR. Any thread of
// the monitor may call it; kicks do not add up.
func (c *VCPU) Kick() error {
	_, err := c.call("vcpu-kick", IOCVCPUKick, nil)
	return err
}

// Info asks for the facts about the VM of this vCPU, in any state.
func (c *VCPU) Info() (VMInfo, error) { return c.vmInfo() }
