// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Descriptors on their way through sockets.

// most is how many descriptors go in one message.
const most = 4

// message is what a system call sees of one; it lies in memory that stays.
type message struct {
	head    unix.Msghdr
	iov     unix.Iovec
	body    [8]byte
	control [unix.SizeofCmsghdr + 4*most]byte
	pair    [2]int32
}

func passOps() []operation {
	pass := func(name string, do func(*thread, *call) unix.Errno) operation {
		return operation{name: name, on: onVM, do: do, build: func(g *gen, c *call) {
			if g.one(4) {
				c.on = g.slot(onVCPU)
			}
			c.n = [3]uint64{g.Uint64(), g.Uint64(), g.Uint64()}
		}}
	}
	return []operation{
		pass("pass", func(t *thread, c *call) unix.Errno { return t.sendFDs(nextFD, c, -1) }),
		pass("bequeath", func(t *thread, c *call) unix.Errno { return t.sendFDs(keeperFD, c, -1) }),
		pass("take", doTake), pass("orphan", doOrphan),
	}
}

// sendFDs sends some neighbours of a descriptor, and one more if it is not -1.
func (t *thread) sendFDs(sock int, c *call, more int32) unix.Errno {
	m := &t.mem.msg
	n := 1 + int(c.n[0]%(most-1))
	fds := (*[most]int32)(unsafe.Pointer(&m.control[unix.SizeofCmsghdr]))
	for i := range n {
		fds[i] = t.pool.get(another(c.on, uint64(c.on.slot)+uint64(i)))
	}
	if more >= 0 {
		fds[n] = more
		n++
	}
	*(*unix.Cmsghdr)(unsafe.Pointer(&m.control)) = unix.Cmsghdr{
		Len: uint64(unix.SizeofCmsghdr + 4*n), Level: unix.SOL_SOCKET, Type: unix.SCM_RIGHTS,
	}
	m.body[0] = byte(c.on.kind)
	m.aim(unix.SizeofCmsghdr + 4*n)
	return sys(unix.SYS_SENDMSG, uintptr(sock), addr(&m.head), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

// aim points the header at the parts.
func (m *message) aim(control int) {
	m.iov = unix.Iovec{Base: &m.body[0], Len: uint64(len(m.body))}
	m.head = unix.Msghdr{Iov: &m.iov, Iovlen: 1, Control: &m.control[0], Controllen: uint64(control)}
}

// doTake receives what the worker before sent.
func doTake(t *thread, c *call) unix.Errno {
	m := &t.mem.msg
	m.aim(len(m.control))
	errno := sys(unix.SYS_RECVMSG, previousFD, addr(&m.head), unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if errno != 0 {
		return errno
	}
	h := (*unix.Cmsghdr)(unsafe.Pointer(&m.control))
	if m.head.Controllen < unix.SizeofCmsghdr || h.Type != unix.SCM_RIGHTS {
		return 0
	}
	fds := (*[most]int32)(unsafe.Pointer(&m.control[unix.SizeofCmsghdr]))
	for i := range min(int(h.Len-unix.SizeofCmsghdr)/4, most) {
		t.pool.put(ref{kind(m.body[0]) % kinds, uint8((c.n[1]+uint64(i))%groups*perGroup + perGroup - 1)}, fds[i])
	}
	return 0
}

// doOrphan sends descriptors into a socket that is closed with them unread;
// sometimes the socket itself is among them, so that only the kernel's collector
// of such circles finds it.
func doOrphan(t *thread, c *call) unix.Errno {
	m := &t.mem.msg
	errno := sys(unix.SYS_SOCKETPAIR, unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0, addr(&m.pair))
	if errno != 0 {
		return errno
	}
	more := int32(-1)
	if c.n[1]%2 == 0 {
		more = m.pair[1]
	}
	errno = t.sendFDs(int(m.pair[0]), c, more)
	sys(unix.SYS_CLOSE, fdOf(m.pair[0]))
	sys(unix.SYS_CLOSE, fdOf(m.pair[1]))
	return errno
}
