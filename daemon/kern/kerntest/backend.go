// SPDX-License-Identifier: Apache-2.0

package kerntest

import (
	"net"
	"os"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// backend is a disk or a network card. All of it is guarded by Kernel.mu. Who
// has files of it cannot be seen from here: a monitor that took them has them
// until it says otherwise or ends.
type backend struct {
	vm       *fakeVM
	number   uint32
	kind     abi.BackendKind
	draining bool
	taken    bool // by the monitor
	parts    []part
}

type part struct {
	file   *os.File
	role   abi.Role
	id     fileID
	mode   uint32 // S_IF*
	writer bool   // open for writing
}

// fileID is the identity of what is open: an inode, or a block device.
type fileID struct{ dev, inode uint64 }

func (b *backend) close() {
	for _, p := range b.parts {
		p.file.Close()
	}
}

// newPart takes a copy of an open file.
func newPart(f *os.File, role abi.Role) (part, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return part{}, err
	}
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return part{}, err
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return part{}, err
	}
	p := part{file: os.NewFile(uintptr(fd), f.Name()), role: role, mode: st.Mode & unix.S_IFMT,
		id: fileID{st.Dev, st.Ino}, writer: flags&unix.O_ACCMODE != unix.O_RDONLY}
	if p.mode == unix.S_IFBLK {
		p.id = fileID{dev: st.Rdev}
	}
	return p, nil
}

// valid reports whether the files are what a backend of that kind has.
func (b *backend) valid() bool {
	taps := 0
	for i, p := range b.parts {
		if b.kind == abi.BackendNIC {
			if p.mode != unix.S_IFCHR || p.role != abi.RoleTap && p.role != abi.RoleVhost {
				return false
			}
			if p.role == abi.RoleTap {
				taps++
			}
			continue
		}
		if p.mode != unix.S_IFREG && p.mode != unix.S_IFBLK || (p.role == abi.RoleData) != (i == 0) || i > 0 && (p.role != abi.RoleBase || p.writer) {
			return false
		}
	}
	return b.kind == abi.BackendDisk || taps == len(b.parts) || 2*taps == len(b.parts)
}

// claimable reports whether b may have its disks: one writer, or many readers.
// Called with mu.
func (k *Kernel) claimable(b *backend) bool {
	if b.kind != abi.BackendDisk {
		return true
	}
	for i, p := range b.parts {
		has := b.parts[:i:i]
		for _, other := range k.backends {
			if other.kind == abi.BackendDisk {
				has = append(has, other.parts...)
			}
		}
		if slices.ContainsFunc(has, func(q part) bool { return q.id == p.id && (p.writer || q.writer) }) {
			return false
		}
	}
	return true
}

// attach is VM_ATTACH_DISK and VM_ATTACH_NIC. Called with mu.
func (k *Kernel) attach(c *call) message {
	b := &backend{vm: c.vm, kind: c.m.Kind}
	errno := b.open(c)
	if errno == 0 {
		c.vm.backends++
		b.number = c.vm.backends
		errno = k.admit(b)
	}
	if errno != 0 {
		b.close()
		return message{Errno: errno}
	}
	k.backends = append(k.backends, b)
	k.tell(c.vm, note{event: abi.EventAttached, backend: b.number})
	return message{Backend: b.number}
}

// open takes the files of a command.
func (b *backend) open(c *call) unix.Errno {
	if len(c.files) == 0 || len(c.files) > abi.MaxBackendFiles || len(c.files) != len(c.m.Roles) {
		return unix.EINVAL
	}
	for i, f := range c.files {
		p, err := newPart(f, c.m.Roles[i])
		if err != nil {
			return unix.EBADF
		}
		b.parts = append(b.parts, p)
	}
	if !b.valid() {
		return unix.EINVAL
	}
	return 0
}

// admit is called with mu.
func (k *Kernel) admit(b *backend) unix.Errno {
	if !k.claimable(b) {
		return unix.EBUSY
	}
	if k.backendsOf(b.vm) >= limit(b.vm.limits.MaxBackends, maxBackends) {
		k.reach(b.vm, abi.LimitBackends)
		return unix.ENOSPC
	}
	return 0
}

// detach is VM_DETACH. Called with mu.
func (k *Kernel) detach(c *call) message {
	b := k.attached(c.vm, c.m.Backend)
	if b == nil || b.number != c.m.Backend {
		return message{Errno: unix.ENOENT}
	}
	b.draining = true
	k.settle()
	return message{}
}

// take is VM_GET_BACKEND. Called with mu.
func (k *Kernel) take(c *call) message {
	b := k.attached(c.vm, c.m.Backend)
	if b == nil {
		return message{Errno: unix.ENOENT}
	}
	b.taken = true
	r := message{Backend: b.number, Kind: b.kind}
	for _, p := range b.parts {
		r.Roles = append(r.Roles, p.role)
		r.files = append(r.files, p.file)
	}
	return r
}

// giveBack is the monitor's word that it has closed the files of a backend.
// Called with mu.
func (k *Kernel) giveBack(c *call) message {
	for _, b := range k.backends {
		if b.vm == c.vm && b.number == c.m.Backend {
			b.taken = false
		}
	}
	k.settle()
	return message{}
}

// returnAll is the end of a monitor, whose VM may be gone already. Called with mu.
func (k *Kernel) returnAll(monitor *net.UnixConn) {
	for _, b := range k.backends {
		if b.vm.bound == monitor {
			b.taken = false
		}
	}
	k.settle()
}

// settle ends what has drained. Called with mu.
func (k *Kernel) settle() {
	var gone []*backend
	k.backends = slices.DeleteFunc(k.backends, func(b *backend) bool {
		b.draining = b.draining || b.vm.info.State == abi.VMStateStopped
		if !b.draining || b.taken {
			return false
		}
		gone = append(gone, b)
		return true
	})
	for _, b := range gone {
		b.close()
		k.tell(b.vm, note{event: abi.EventDetached, backend: b.number})
	}
}

// attached returns the attached backend with the lowest number from that on.
func (k *Kernel) attached(v *fakeVM, from uint32) *backend {
	for _, b := range k.backends {
		if b.vm == v && !b.draining && b.number >= from {
			return b
		}
	}
	return nil
}

func (k *Kernel) backendsOf(v *fakeVM) uint32 {
	n := uint32(0)
	for _, b := range k.backends {
		if b.vm == v {
			n++
		}
	}
	return n
}

func (b *backend) attributes() []byte {
	return attributes(func(e *netlink.AttributeEncoder) {
		state := abi.BackendStateAttached
		if b.draining {
			state = abi.BackendStateDraining
		}
		e.Uint64(abi.ADevVMID, b.vm.info.ID)
		e.Uint32(abi.ADevBackend, b.number)
		e.Uint32(abi.ADevKind, uint32(b.kind))
		e.Uint32(abi.ADevState, uint32(state))
		for _, p := range b.parts {
			e.Uint32(abi.ADevRole, uint32(p.role))
		}
		if b.kind == abi.BackendDisk {
			e.Uint64(abi.ADevDev, b.parts[0].id.dev)
			e.Uint64(abi.ADevInode, b.parts[0].id.inode)
			e.Flag(abi.ADevWritable, b.parts[0].writer)
		}
	})
}
