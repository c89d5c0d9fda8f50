// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Part is one file of a backend.
type Part struct {
	FD   int
	Role Role
}

// Backend is what a device of the VM works on, as the monitor takes it.
type Backend struct {
	Number uint32
	Kind   BackendKind
	Parts  []Part // descriptors of the caller's own; -1 for a vhost that was given out
}

// AttachDisk attaches a disk: a file with [RoleData], and those with [RoleBase]
// below it. It returns the number of the backend. Right: control. The caller
// closes its descriptors afterwards, or the backend never goes.
// errors.Is: unix.EBUSY (one writer or many readers), unix.ENOSPC, unix.EBADF.
func (v *VM) AttachDisk(parts ...Part) (uint32, error) {
	return v.attach("vm-attach-disk", IOCVMAttachDisk, parts)
}

// AttachNIC attaches a network card: files with [RoleTap], and as many with
// [RoleVhost] or none. Otherwise as [VM.AttachDisk].
func (v *VM) AttachNIC(parts ...Part) (uint32, error) {
	return v.attach("vm-attach-nic", IOCVMAttachNIC, parts)
}

func (v *VM) attach(op string, req uintptr, parts []Part) (uint32, error) {
	if len(parts) > MaxBackendFiles {
		return 0, &Error{op, unix.EINVAL}
	}
	a := VMAttach{Count: uint32(len(parts))}
	a.Size = uint32(unsafe.Sizeof(a))
	for i, p := range parts {
		a.Files[i] = BackendFile{FD: int32(p.FD), Role: p.Role}
	}
	if _, err := v.call(op, req, unsafe.Pointer(&a)); err != nil {
		return 0, err
	}
	return a.Backend, nil
}

// Detach begins to detach a backend; [EventDetached] tells when it is gone.
// Right: control. errors.Is: unix.ENOENT.
func (v *VM) Detach(backend uint32) error {
	d := VMDetach{Backend: backend}
	d.Size = uint32(unsafe.Sizeof(d))
	_, err := v.call("vm-detach", IOCVMDetach, unsafe.Pointer(&d))
	return err
}

// Backend takes the files of the attached backend with the lowest number from
// that one on. Right: run. errors.Is: unix.ENOENT when there is none, which ends
// a scan that began with 0: see vmm.h.
func (v *VM) Backend(from uint32) (Backend, error) {
	g := VMGetBackend{Backend: from}
	g.Size = uint32(unsafe.Sizeof(g))
	if _, err := v.call("vm-get-backend", IOCVMGetBackend, unsafe.Pointer(&g)); err != nil {
		return Backend{}, err
	}
	b := Backend{Number: g.Backend, Kind: g.Kind}
	for _, f := range g.Files[:min(g.Count, MaxBackendFiles)] {
		b.Parts = append(b.Parts, Part{int(f.FD), f.Role})
	}
	return b, nil
}
