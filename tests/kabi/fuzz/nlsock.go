// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Sockets of the netlink family.

func doOpenNetlink(t *thread, c *call) unix.Errno {
	fd, errno := sysN(unix.SYS_SOCKET, unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_GENERIC)
	if errno != 0 {
		return errno
	}
	t.mem.number = 1
	for i, option := range [...]uintptr{unix.NETLINK_CAP_ACK, unix.NETLINK_EXT_ACK, unix.NETLINK_GET_STRICT_CHK} {
		if c.n[0]>>i&1 != 0 {
			sys(unix.SYS_SETSOCKOPT, fd, unix.SOL_NETLINK, option, addr(&t.mem.number), 4)
		}
	}
	return t.keep(c, fd, 0)
}

// doJoin joins or leaves the group of events. Nobody reads them: the socket
// overflows.
func doJoin(t *thread, c *call) unix.Errno {
	option := uintptr(unix.NETLINK_ADD_MEMBERSHIP)
	if c.n[0] == 3 {
		option = unix.NETLINK_DROP_MEMBERSHIP
	}
	t.mem.number = t.all.group.Load()
	return sys(unix.SYS_SETSOCKOPT, fdOf(t.pool.get(c.on)), unix.SOL_NETLINK, option, addr(&t.mem.number), 4)
}

// doRequest sends a request and reads some of what comes back. A dump that is not
// read to its end goes on in the socket, or ends with it.
func doRequest(t *thread, c *call) unix.Errno {
	at, n := t.lay(c.of, c)
	fd := fdOf(t.pool.get(c.on))
	errno := sys(unix.SYS_SENDTO, fd, at, uintptr(n), unix.MSG_DONTWAIT, 0, 0)
	if c.at == placeLate {
		t.mem.late.again()
	}
	if errno != 0 {
		return errno
	}
	answer := unix.EAGAIN
	for range c.n[0] {
		n, errno := sysN(unix.SYS_RECVFROM, fd, addrOf(t.mem.out), outSize, unix.MSG_DONTWAIT, 0, 0)
		if errno == unix.EAGAIN {
			return answer
		}
		if errno != 0 {
			return errno
		}
		if last, ended := outcome(t.mem.out[:n]); ended {
			return last
		}
		answer = 0 // there was one, as far as it was read
	}
	return answer
}

// outcome looks for the message that ends an answer.
func outcome(b []byte) (errno unix.Errno, ended bool) {
	for len(b) >= unix.SizeofNlMsghdr {
		n := int(binary.LittleEndian.Uint32(b))
		kind := binary.LittleEndian.Uint16(b[4:])
		if n < unix.SizeofNlMsghdr || n > len(b) {
			return 0, false
		}
		if (kind == unix.NLMSG_ERROR || kind == unix.NLMSG_DONE) && n >= unix.SizeofNlMsghdr+4 {
			return unix.Errno(-int32(binary.LittleEndian.Uint32(b[unix.SizeofNlMsghdr:]))), true
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return 0, false
}
