// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"vmctl/daemon/vm"
)

const (
	ctlBacklog     = 4
	consoleBacklog = 32
)

// inherited is what a monitor gets, in the order of its descriptors from 2 on:
// log, control socket, console socket, scrollback.
type inherited struct {
	files []*os.File
	log   *os.File // our end of the log pipe
}

// inherit makes all of it anew: a socket's path is taken over from a monitor
// that is gone, the scrollback stays.
func (l *Launcher) inherit(spec vm.MonitorSpec) (h *inherited, err error) {
	h = &inherited{}
	defer func() {
		if err != nil {
			h.close()
			if h.log != nil {
				h.log.Close()
			}
		}
	}()
	reader, writer, err := os.Pipe()
	if err != nil {
		return h, err
	}
	h.log = reader
	h.files = append(h.files, writer)
	ctl, err := listen(l.ctlSocket(spec.UUID), unix.SOCK_SEQPACKET, ctlBacklog, 0o600, -1)
	if err != nil {
		return h, fmt.Errorf("control socket: %w", err)
	}
	h.files = append(h.files, ctl)
	console, err := listen(l.ConsoleSocket(spec.UUID), unix.SOCK_STREAM, consoleBacklog, 0o660, l.c.Group)
	if err != nil {
		return h, fmt.Errorf("console socket: %w", err)
	}
	h.files = append(h.files, console)
	scroll, err := l.scrollback(spec.UUID)
	if err != nil {
		return h, fmt.Errorf("scrollback: %w", err)
	}
	h.files = append(h.files, scroll)
	return h, nil
}

// close closes the monitor's ends. The daemon must keep no listening socket: a
// refused connection is how it learns that no monitor is there.
func (h *inherited) close() {
	for _, f := range h.files {
		f.Close() // nothing was written
	}
	h.files = nil
}

func (l *Launcher) scrollback(uuid string) (*os.File, error) {
	dir := l.stateDir(uuid)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return os.OpenFile(filepath.Join(dir, "console.log"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
}

// listen makes a listening unix socket at path. Its mode is set before anybody
// can connect: between bind and listen.
func listen(path string, kind, backlog int, mode fs.FileMode, gid int) (*os.File, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), path)
	fail := func(op string, err error) (*os.File, error) {
		f.Close()
		return nil, os.NewSyscallError(op, err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return fail("bind", err)
	}
	if err := os.Chmod(path, mode); err != nil {
		return fail("chmod", err)
	}
	if gid >= 0 {
		if err := os.Chown(path, -1, gid); err != nil {
			return fail("chown", err)
		}
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return fail("listen", err)
	}
	return f, nil
}
