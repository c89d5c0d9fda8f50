// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"unsafe"

	"vmctl/abi"
)

// Commands about what devices work on.

func backendOps() []operation {
	return []operation{
		whole[abi.VMAttach]("VM_ATTACH_DISK", abi.IOCVMAttachDisk, onVM, buildDisk),
		whole[abi.VMAttach]("VM_ATTACH_NIC", abi.IOCVMAttachNIC, onVM, buildNIC),
		whole[abi.VMDetach]("VM_DETACH", abi.IOCVMDetach, onVM, func(g *gen, c *call) {
			in[abi.VMDetach](c, 0).Backend = g.backend()
		}),
		withAfter(whole[abi.VMGetBackend]("VM_GET_BACKEND", abi.IOCVMGetBackend, onVM, func(g *gen, c *call) {
			in[abi.VMGetBackend](c, 0).Backend = g.backend() - 1
		}), afterGetBackend),
	}
}

// backend is the number of one, mostly low: they are never used again.
func (g *gen) backend() uint32 { return 1 + g.Uint32N(1+g.Uint32N(24)) }

// file adds a file of a backend.
func (c *call) file(r ref, role abi.Role) {
	v := in[abi.VMAttach](c, 0)
	if v.Count == abi.MaxBackendFiles {
		return
	}
	f := &v.Files[v.Count]
	c.put(int(uintptr(unsafe.Pointer(f))-uintptr(unsafe.Pointer(v))), r)
	f.Role = role
	v.Count++
}

// backing chooses a file of a kind, seldom of another.
func (g *gen) backing(k kind) ref {
	if g.one(30) {
		return g.any()
	}
	return ref{k, uint8(g.IntN(used[k]))}
}

func buildDisk(g *gen, c *call) {
	c.file(g.backing(onDisk), abi.RoleData)
	for g.step.choice < 0 && g.one(3) {
		c.file(g.backing(onDisk), abi.RoleBase)
	}
	g.wrongRole(c)
}

func buildNIC(g *gen, c *call) {
	n := 1
	for n < 9 && g.one(3) {
		n++
	}
	for range n {
		c.file(g.backing(onTap), abi.RoleTap)
	}
	if g.one(2) {
		for range n {
			c.file(g.backing(onTap), abi.RoleVhost)
		}
	}
	g.wrongRole(c)
}

// wrongRole breaks the order or the number of files now and then.
func (g *gen) wrongRole(c *call) {
	if !g.one(16) {
		return
	}
	v := in[abi.VMAttach](c, 0)
	switch g.IntN(3) {
	case 0:
		v.Files[g.IntN(int(v.Count))].Role = abi.Role(g.IntN(6))
	case 1:
		v.Count = g.Uint32N(abi.MaxBackendFiles + 3)
	default:
		v.Files[g.IntN(abi.MaxBackendFiles)] = abi.BackendFile{FD: int32(g.IntN(60)), Role: abi.Role(g.IntN(5))}
	}
}

func afterGetBackend(t *thread, c *call, arg []byte) {
	v := (*abi.VMGetBackend)(unsafe.Pointer(&arg[0]))
	for i := range min(v.Count, abi.MaxBackendFiles) {
		t.taken++
		t.pool.put(ref{onTaken, uint8(t.taken % slots)}, v.Files[i].FD)
	}
}
