// SPDX-License-Identifier: Apache-2.0

// Package listen takes connections on sockets that were inherited. It needs
// neither package net nor a path.
package listen

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Socket is a listening socket, of any kind that has connections.
type Socket struct {
	file *os.File
	raw  syscall.RawConn
}

// Open takes over a listening socket, also when it returns an error.
func Open(fd int, name string) (*Socket, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	file := os.NewFile(uintptr(fd), name)
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, err
	}
	return &Socket{file: file, raw: raw}, nil
}

// Close makes Accept return os.ErrClosed.
func (s *Socket) Close() error { return s.file.Close() }

// Accept waits for a connection and returns its descriptor, which does not block
// and is the caller's to close.
func (s *Socket) Accept() (int, error) {
	var fd int
	var fault error
	for {
		err := s.raw.Read(func(listener uintptr) bool {
			fd, _, fault = unix.Accept4(int(listener), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			return fault != unix.EAGAIN
		})
		if err != nil {
			return -1, os.ErrClosed // nothing else ends the wait
		}
		switch {
		case fault == nil:
			return fd, nil
		case errors.Is(fault, unix.EINTR), errors.Is(fault, unix.ECONNABORTED):
		default:
			return -1, os.NewSyscallError("accept", fault)
		}
	}
}
