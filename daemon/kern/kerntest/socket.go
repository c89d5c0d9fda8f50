// SPDX-License-Identifier: Apache-2.0

package kerntest

import (
	"iter"
	"net"
	"os"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// socket is the other end of Kernel.netlink: a socket of package netlink.
type socket struct{ *net.UnixConn }

// dialNetlink is a kern.Dialer.
func (k *Client) dialNetlink(deadline time.Time) (*genetlink.Conn, error) {
	c, err := k.dial()
	if err != nil {
		return nil, err
	}
	if err := send(c, message{Op: "netlink"}); err != nil {
		c.Close()
		return nil, err
	}
	conn := netlink.NewConn(socket{c}, uint32(os.Getpid()))
	if err := conn.SetDeadline(deadline); err != nil {
		c.Close()
		return nil, err
	}
	return genetlink.NewConn(conn), nil
}

// Send sends one message.
func (s socket) Send(m netlink.Message) error { return sendNetlink(s.UnixConn, m) }

// SendMessages sends messages.
func (s socket) SendMessages(m []netlink.Message) error { return sendNetlink(s.UnixConn, m...) }

// Receive waits for a message.
func (s socket) Receive() ([]netlink.Message, error) {
	m, err := receiveNetlink(s.UnixConn)
	if err == nil && m.Header.Type == netlink.Overrun {
		err = os.NewSyscallError("recvmsg", unix.ENOBUFS)
	}
	return []netlink.Message{m}, err
}

// ReceiveIter is Receive.
func (s socket) ReceiveIter() iter.Seq2[netlink.Message, error] {
	return func(yield func(netlink.Message, error) bool) {
		m, err := s.Receive()
		yield(m[0], err)
	}
}

// JoinGroup joins the notices. Those of the controller come with them.
func (s socket) JoinGroup(group uint32) error {
	if group == unix.GENL_ID_CTRL {
		return nil
	}
	if err := sendNetlink(s.UnixConn, ack); err != nil {
		return err
	}
	_, err := receiveNetlink(s.UnixConn)
	return err
}

// LeaveGroup is not there: who joins listens until the end.
func (s socket) LeaveGroup(uint32) error { return unix.EOPNOTSUPP }

// sendNetlink sends each message in a packet.
func sendNetlink(c *net.UnixConn, msgs ...netlink.Message) error {
	for _, m := range msgs {
		m.Header.Length = uint32(unix.SizeofNlMsghdr + (len(m.Data)+3)&^3)
		raw, err := m.MarshalBinary()
		if err == nil {
			_, err = c.Write(raw)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func receiveNetlink(c *net.UnixConn) (netlink.Message, error) {
	var m netlink.Message
	buf := make([]byte, 4096) // a VM has a tenth of that
	n, err := c.Read(buf)
	if err == nil {
		err = m.UnmarshalBinary(buf[:n])
	}
	return m, err
}
