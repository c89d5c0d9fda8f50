// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// ErrTruncated is a packet, or a number of descriptors, above the limits.
	ErrTruncated = errors.New("packet is larger than the protocol allows")
	// ErrFDs is too many descriptors to send.
	ErrFDs = errors.New("too many descriptors")
)

// sendTimeout is how long a peer may leave its socket full.
const sendTimeout = 10 * time.Second

// Conn carries packets over one connected SOCK_SEQPACKET socket. Several
// goroutines may send; one receives. It uses neither net nor a path.
type Conn struct {
	file *os.File
	raw  syscall.RawConn
	buf  []byte
	oob  []byte

	mu  sync.Mutex // guards out, and keeps packets apart
	out []byte
}

// NewConn takes over a connected socket, also when it returns an error.
func NewConn(fd int) (*Conn, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	file := os.NewFile(uintptr(fd), "control")
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, err
	}
	return &Conn{file: file, raw: raw, oob: make([]byte, unix.CmsgSpace(MaxFDs*4))}, nil
}

// Close ends the connection; Recv and Send return os.ErrClosed.
func (c *Conn) Close() error { return c.file.Close() }

// SetReadDeadline bounds Recv: os.ErrDeadlineExceeded.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.file.SetReadDeadline(t) }

// Send sends a packet with copies of the descriptors. A peer that does not read
// for 10 s is an error.
func (c *Conn) Send(p Packet, fds ...int) error {
	if len(fds) > MaxFDs {
		return ErrFDs
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = p.Append(c.out[:0])
	if len(c.out) > MaxMessage {
		return ErrTruncated
	}
	if err := c.file.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return waitError(err)
	}
	var fault error
	err := c.raw.Write(func(fd uintptr) bool {
		fault = ignoreEINTR(func() error {
			return unix.Sendmsg(int(fd), c.out, oob, nil, unix.MSG_NOSIGNAL)
		})
		return fault != unix.EAGAIN
	})
	if err != nil {
		return waitError(err)
	}
	return os.NewSyscallError("sendmsg", fault)
}

// waitError is why the socket could not be waited for. What package os says of a
// closed file here is not os.ErrClosed.
func waitError(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return os.ErrClosed
}

// Recv waits for a packet and its descriptors, which are the caller's to close,
// also when the packet could not be parsed. errors.Is: io.EOF when the peer is
// gone, os.ErrClosed, os.ErrDeadlineExceeded, the errors of Parse. After an
// error of Parse the connection can go on.
func (c *Conn) Recv() (Packet, []int, error) {
	if c.buf == nil {
		c.buf = make([]byte, MaxMessage)
	}
	var n, oobn, flags int
	var fault error
	err := c.raw.Read(func(fd uintptr) bool {
		fault = ignoreEINTR(func() (err error) {
			n, oobn, flags, _, err = unix.Recvmsg(int(fd), c.buf, c.oob, unix.MSG_CMSG_CLOEXEC)
			return err
		})
		return fault != unix.EAGAIN
	})
	if err != nil {
		return Packet{}, nil, waitError(err)
	}
	if fault != nil {
		return Packet{}, nil, os.NewSyscallError("recvmsg", fault)
	}
	fds, err := descriptors(c.oob[:oobn])
	if err == nil && flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = ErrTruncated
	}
	if err != nil {
		CloseAll(fds)
		return Packet{}, nil, err
	}
	if n == 0 {
		CloseAll(fds)
		return Packet{}, nil, io.EOF
	}
	p, err := Parse(c.buf[:n])
	return p, fds, err
}

// descriptors takes the descriptors out of control data.
func descriptors(oob []byte) ([]int, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var fds []int
	for i := range msgs {
		got, err := unix.ParseUnixRights(&msgs[i])
		if err == unix.EINVAL {
			continue // other control data
		}
		fds = append(fds, got...)
	}
	return fds, nil
}

// CloseAll closes descriptors that came with a packet.
func CloseAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

func ignoreEINTR(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}
