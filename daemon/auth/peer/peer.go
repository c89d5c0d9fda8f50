// SPDX-License-Identifier: Apache-2.0

// Package peer asks the kernel who is at the other end of a unix socket. It is
// a package of its own because SO_PEERGROUPS has no wrapper in x/sys: the one
// use of unsafe outside the ABI.
package peer

import (
	"errors"
	"fmt"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Cred is a process as it was when it connected.
type Cred struct {
	UID  uint32
	GIDs []uint32 // primary and supplementary
	PID  int32
}

const maxGroups = 65536 // NGROUPS_MAX of Linux

// Of returns who is at the other end of c.
func Of(c *net.UnixConn) (Cred, error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return Cred{}, fmt.Errorf("peer: %w", err)
	}
	var cred Cred
	var inner error
	if err := rc.Control(func(fd uintptr) { cred, inner = ofFD(int(fd)) }); err != nil {
		return Cred{}, fmt.Errorf("peer: %w", err)
	}
	if inner != nil {
		return Cred{}, fmt.Errorf("peer: %w", inner)
	}
	return cred, nil
}

func ofFD(fd int) (Cred, error) {
	u, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Cred{}, err
	}
	groups, err := peerGroups(fd)
	if err != nil {
		return Cred{}, err
	}
	return Cred{UID: u.Uid, GIDs: append([]uint32{u.Gid}, groups...), PID: u.Pid}, nil
}

func peerGroups(fd int) ([]uint32, error) {
	groups := make([]uint32, 32)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		n := int(size / 4)
		switch {
		case errno == 0:
			return groups[:n], nil
		case errno == unix.ERANGE && n > len(groups) && n <= maxGroups:
			groups = make([]uint32, n)
		case errno == unix.ERANGE:
			return nil, errors.New("too many groups")
		default:
			return nil, errno
		}
	}
}
