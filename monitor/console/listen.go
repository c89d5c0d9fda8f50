// SPDX-License-Identifier: Apache-2.0

package console

import (
	"os"

	"vmctl/monitor/listen"
)

// Socket is a listening socket that was inherited.
type Socket struct{ socket *listen.Socket }

// Listen takes over a listening stream socket, also when it returns an error.
func Listen(fd int) (*Socket, error) {
	s, err := listen.Open(fd, "console")
	return &Socket{s}, err
}

// Close makes Accept return os.ErrClosed.
func (s *Socket) Close() error { return s.socket.Close() }

// Accept waits for a connection.
func (s *Socket) Accept() (Conn, error) {
	fd, err := s.socket.Accept()
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "viewer"), nil
}
