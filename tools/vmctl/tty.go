// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// errInputEnded is what a read returns after stop.
var errInputEnded = errors.New("input was stopped")

// input reads from a file of any kind and can be stopped while it waits: a
// plain read of a terminal cannot. It does not own the file.
type input struct {
	fd    int
	wakeR *os.File
	wakeW *os.File
	once  sync.Once
}

func newInput(f *os.File) (*input, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	return &input{fd: int(f.Fd()), wakeR: r, wakeW: w}, nil
}

// Read waits for input; io.EOF at its end, errInputEnded after stop.
func (in *input) Read(b []byte) (int, error) {
	fds := []unix.PollFd{{Fd: int32(in.fd), Events: unix.POLLIN}, {Fd: int32(in.wakeR.Fd()), Events: unix.POLLIN}}
	for {
		fds[0].Revents, fds[1].Revents = 0, 0
		if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
			return 0, fmt.Errorf("poll input: %w", err)
		}
		if fds[1].Revents != 0 {
			return 0, errInputEnded
		}
		if fds[0].Revents == 0 {
			continue
		}
		n, err := unix.Read(in.fd, b)
		switch {
		case err == unix.EINTR || err == unix.EAGAIN:
			continue
		case err != nil:
			return 0, fmt.Errorf("read input: %w", err)
		case n == 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

// stop makes the read that waits now, and all later ones, return.
func (in *input) stop() {
	in.once.Do(func() { in.wakeW.Close() })
}

// close stops and gives the pipe back; no read may be under way.
func (in *input) close() {
	in.stop()
	in.wakeR.Close()
}

// terminal is a terminal in another mode than it had. restore may be called
// from any goroutine and more than once.
type terminal struct {
	fd    int
	saved *term.State
	set   func() error
	mu    sync.Mutex
	done  bool
}

func isTerminal(f *os.File) bool { return f != nil && term.IsTerminal(int(f.Fd())) }

// rawTerminal hands every key to us and prints what we print as it is.
func rawTerminal(f *os.File) (*terminal, error) {
	fd := int(f.Fd())
	return changeTerminal(fd, func() error { _, err := term.MakeRaw(fd); return err })
}

// mutedTerminal does not show what is typed.
func mutedTerminal(f *os.File) (*terminal, error) {
	fd := int(f.Fd())
	return changeTerminal(fd, func() error {
		mode, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err != nil {
			return err
		}
		mode.Lflag = mode.Lflag&^unix.ECHO | unix.ICANON | unix.ISIG
		mode.Iflag |= unix.ICRNL
		return unix.IoctlSetTermios(fd, unix.TCSETS, mode)
	})
}

func changeTerminal(fd int, set func() error) (*terminal, error) {
	saved, err := term.GetState(fd)
	if err != nil {
		return nil, fmt.Errorf("terminal: %w", err)
	}
	t := &terminal{fd: fd, saved: saved, set: set}
	if err := set(); err != nil {
		return nil, fmt.Errorf("terminal: %w", err)
	}
	return t, nil
}

func (t *terminal) restore() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.done {
		return
	}
	t.done = true
	_ = term.Restore(t.fd, t.saved) // a terminal that is gone needs no mode
}

// again sets the mode anew: a shell changed it while we were stopped.
func (t *terminal) again() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.done {
		_ = t.set()
	}
}

// guard restores the terminal when its goroutine panics. Use it by defer.
func (t *terminal) guard() {
	if r := recover(); r != nil {
		t.restore()
		panic(r)
	}
}

// watchTerminal calls resized at once and after each change of the size, and
// keeps the mode over a stop of the process, until quit is closed.
func watchTerminal(t *terminal, quit <-chan struct{}, resized func(cols, rows int)) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGWINCH, unix.SIGCONT)
	defer signal.Stop(signals)
	for {
		if cols, rows, err := term.GetSize(t.fd); err == nil {
			resized(cols, rows)
		}
		select {
		case <-quit:
			return
		case s := <-signals:
			if s == unix.SIGCONT {
				t.again()
			}
		}
	}
}
