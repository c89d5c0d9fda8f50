// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// DevicePath is where the module's device is.
const DevicePath = "/dev/vmm"

// Device is /dev/vmm, opened.
type Device struct{ file }

// OpenDevice opens the device at path, usually [DevicePath].
// errors.Is: unix.ENOENT when the module is not loaded, unix.EACCES.
func OpenDevice(path string) (*Device, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &Error{"open " + path, err.(unix.Errno)}
	}
	return NewDevice(fd), nil
}

// NewDevice takes over a descriptor of the device.
func NewDevice(fd int) *Device {
	d := new(Device)
	d.fd.Store(int32(fd))
	return d
}

// Create makes a VM in state created and returns it, with all rights, and its
// number, which is never used again. A name has 1 to 63 bytes of [A-Za-z0-9._-].
// errors.Is: unix.EEXIST when the uuid is in use, unix.ENOSPC when the host has
// its fill of VMs.
func (d *Device) Create(uuid [UUIDLen]byte, name string) (*VM, uint64, error) {
	c := VMCreate{UUID: uuid, FD: closed}
	c.Size = uint32(unsafe.Sizeof(c))
	if copy(c.Name[:NameLen-1], name) < len(name) {
		return nil, 0, &Error{"vm-create", unix.EINVAL}
	}
	if _, err := d.call("vm-create", IOCVMCreate, unsafe.Pointer(&c)); err != nil {
		return nil, 0, err
	}
	return NewVM(int(c.FD)), c.ID, nil
}

// Open opens a VM by its number, with the rights that are asked for: for the user
// that created it, and for CAP_SYS_ADMIN.
// errors.Is: unix.ENOENT when there is none, unix.EPERM.
func (d *Device) Open(id uint64, rights Right) (*VM, error) {
	o := VMOpen{ID: id, Rights: rights, FD: closed}
	o.Size = uint32(unsafe.Sizeof(o))
	if _, err := d.call("vm-open", IOCVMOpen, unsafe.Pointer(&o)); err != nil {
		return nil, err
	}
	return NewVM(int(o.FD)), nil
}
