// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/monitor/ctl"
)

const (
	vsockName    = "v.sock"
	vsockBacklog = 32
	// dialsKept is how many requests of a guest's wait: above what a monitor has open
	// at a time. Each takes dialPace at the least, so that a guest that does nothing
	// else costs the daemon 250 of them in a second.
	dialsKept   = 32
	dialPace    = 4 * time.Millisecond
	dialTimeout = 10 * time.Second // for the monitor to take the answer
)

// vsock is the folder where the sockets of one guest meet those of the host: v.sock,
// where the host's programs connect, and what they listen on for the guest, which is
// v.sock, an underscore and the port. A guest's services ask nobody who is there, so
// the folder is for those who may do everything with every VM; each of them keeps what
// it made. A socket there must be writable by the folder's group, which it has.
type vsock struct {
	dir string
	gid int // -1: for the daemon's own user alone
}

func (l *Launcher) vsock(uuid string) vsock {
	return vsock{filepath.Join(l.c.RunDir, "vsock", uuid), l.c.Admins}
}

// listen makes the folder and the socket for a run.
func (v vsock) listen() (*os.File, error) {
	mode := fs.FileMode(0o700)
	if v.gid >= 0 {
		mode = fs.ModeSetgid | fs.ModeSticky | 0o770
	}
	if err := makeDir(v.dir, mode, v.gid); err != nil {
		return nil, err
	}
	return listen(filepath.Join(v.dir, vsockName), unix.SOCK_STREAM, vsockBacklog, 0o660, v.gid)
}

// dial connects to who listens for a port, without waiting. Whoever may write to the
// folder could put a link there: none is followed.
func (v vsock) dial(port uint32) (*os.File, error) {
	const flags = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	path := filepath.Join(v.dir, vsockName+"_"+strconv.FormatUint(uint64(port), 10))
	at, err := unix.Open(path, flags, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(at)
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return nil, &fs.PathError{Op: "connect", Path: path, Err: unix.ENOTSOCK}
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	file := os.NewFile(uintptr(fd), path)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: "/proc/self/fd/" + strconv.Itoa(at)}); err != nil {
		file.Close()
		return nil, os.NewSyscallError("connect", err)
	}
	return file, nil
}

// asked is called by the receiver: its first call begins to answer.
func (m *Monitor) asked(d *ctl.VsockDial) {
	if m.dials == nil {
		m.dials = make(chan *ctl.VsockDial, dialsKept)
		m.hangup.Go(m.answerDials)
	}
	select {
	case m.dials <- d:
	default: // the guest's attempt times out
	}
}

// answerDials connects for the guest, one after the other, until the connection ends.
func (m *Monitor) answerDials() {
	pace := time.NewTicker(dialPace)
	defer pace.Stop()
	for d := range m.dials {
		m.answerDial(d)
		select {
		case <-pace.C:
		case <-m.client.Done():
		}
	}
}

func (m *Monitor) answerDial(d *ctl.VsockDial) {
	fd := -1
	file, err := m.vsock.dial(d.Port)
	if err == nil {
		defer file.Close()
		fd = int(file.Fd())
	}
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	if err := m.client.VsockDialed(ctx, d.Number, fd); err != nil && !errors.Is(err, ctl.ErrGone) {
		m.log.Debug("monitor does not take a socket", "op", "vsock", "port", d.Port, "err", err)
	}
}
