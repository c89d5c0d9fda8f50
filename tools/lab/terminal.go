// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"vmctl/tools/lab/wire"
)

// terminal is the user's, in raw mode while a shell runs in the machine.
type terminal struct {
	fd    int
	state *term.State
	sizes chan wire.Size
	winch chan os.Signal
}

// escapeKey leaves a machine that does not answer: Ctrl-].
const escapeKey = 0x1d

// openTerminal makes stdin raw. It returns nil if stdin is not a terminal.
func openTerminal() (*terminal, error) {
	fd := int(os.Stdin.Fd())
	if !term.IsTerminal(fd) {
		return nil, nil
	}
	state, err := term.MakeRaw(fd)
	if err != nil {
		return nil, err
	}
	t := &terminal{fd: fd, state: state, sizes: make(chan wire.Size, 1), winch: make(chan os.Signal, 1)}
	signal.Notify(t.winch, unix.SIGWINCH)
	go func() {
		defer close(t.sizes)
		for range t.winch {
			t.sizes <- t.size()
		}
	}()
	return t, nil
}

func (t *terminal) size() wire.Size {
	cols, rows, err := term.GetSize(t.fd)
	if err != nil || rows <= 0 || cols <= 0 || rows > 1<<15 || cols > 1<<15 {
		return wire.Size{Rows: 24, Cols: 80}
	}
	return wire.Size{Rows: uint16(rows), Cols: uint16(cols)}
}

// close gives the terminal back as it was.
func (t *terminal) close() {
	signal.Stop(t.winch)
	close(t.winch)
	term.Restore(t.fd, t.state)
}

// escaping reads from r until the escape key comes, which calls leave.
type escaping struct {
	r     io.Reader
	leave func()
}

func (e escaping) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if i := bytes.IndexByte(p[:n], escapeKey); i >= 0 {
		e.leave()
		return i, io.EOF
	}
	return n, err
}

// ourInput says whether stdin may be read: a background job that reads its
// terminal would be stopped.
func ourInput() bool {
	fd := int(os.Stdin.Fd())
	if !term.IsTerminal(fd) {
		return true
	}
	group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
