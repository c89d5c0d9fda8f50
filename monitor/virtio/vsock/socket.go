// SPDX-License-Identifier: Apache-2.0

package vsock

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// here is the offset of what has none: preadv2(2). The filter of system calls has no
// readv, as disks need the other.
const here = -1

// retry makes a call again that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// send writes to a socket. Without wait it may write nothing.
func send(raw syscall.RawConn, data [][]byte, wait bool) (n int, err error) {
	failed := raw.Write(func(fd uintptr) bool {
		err = retry(func() (err error) {
			n, err = unix.SendmsgBuffers(int(fd), data, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			return err
		})
		return !wait || err != unix.EAGAIN
	})
	switch {
	case failed != nil:
		return 0, failed
	case err == unix.EAGAIN:
		return 0, nil
	case err != nil:
		return 0, err
	}
	return n, nil
}

// receive reads from a socket without waiting. 0 is its end. errors.Is: unix.EAGAIN.
func receive(raw syscall.RawConn, room [][]byte) (n int, err error) {
	failed := raw.Read(func(fd uintptr) bool {
		err = retry(func() (err error) {
			n, err = unix.Preadv2(int(fd), room, here, 0)
			return err
		})
		return true
	})
	switch {
	case failed != nil:
		return 0, failed
	case err != nil:
		return 0, err
	}
	return n, nil
}

// peek looks whether there is something to read, an end or an error too.
func peek(fd int) error {
	var b [1]byte
	return retry(func() error {
		_, _, _, _, err := unix.RecvmsgBuffers(fd, [][]byte{b[:]}, nil, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return err
	})
}

// takesNothing sends nothing, to see whether the other side would take it: what else
// tells one that closed its socket from one that shut down half of it are bits of
// poll(2), which the runtime keeps to itself.
func takesNothing(fd int) bool {
	err := retry(func() error { return unix.Sendmsg(fd, nil, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL) })
	return err != nil && err != unix.EAGAIN
}

// closed is takesNothing, of a socket that may be closed meanwhile.
func closed(raw syscall.RawConn) (yes bool) {
	err := raw.Control(func(fd uintptr) { yes = takesNothing(int(fd)) })
	return yes || err != nil
}
