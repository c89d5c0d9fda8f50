// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/daemon/vm"
)

const (
	reapTimeout = 10 * time.Second
	explainTime = 250 * time.Millisecond
)

// process is a monitor's process, ours or an earlier daemon's, known by a
// descriptor: a number can be another's a moment later. Its goroutines end with
// the process or with close.
type process struct {
	id     vm.Process
	fd     *os.File      // pidfd
	out    *os.File      // our end of its log; nil when an earlier daemon had it
	ended  chan struct{} // closed when the process has ended and was reaped
	status atomic.Int32  // wait status, after ended, of a child; else -1
	log    *slog.Logger
	wg     sync.WaitGroup
	once   sync.Once
}

// newProcess takes over both descriptors, also with an error.
func newProcess(pid, pidfd int, out *os.File, log *slog.Logger) (*process, error) {
	// Non-blocking, so that the runtime's poller waits and no thread does.
	if err := unix.SetNonblock(pidfd, true); err != nil {
		unix.Close(pidfd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	p := &process{id: vm.Process{PID: pid}, fd: os.NewFile(uintptr(pidfd), fmt.Sprintf("pidfd-%d", pid)), out: out,
		ended: make(chan struct{}), log: log}
	p.status.Store(-1)
	start, err := startTime(pid)
	if err != nil { // it ended already: the pidfd says so
		start = 0
	}
	p.id.Start = start
	p.wg.Add(1)
	go p.wait()
	if out != nil {
		p.wg.Add(1)
		go p.copyLog()
	}
	return p, nil
}

// findProcess opens a process of an earlier daemon. errors.Is: vm.ErrMonitorGone
// when it has ended, or when its number belongs to another one now.
func findProcess(id vm.Process, log *slog.Logger) (*process, error) {
	fd, err := unix.PidfdOpen(id.PID, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil, vm.ErrMonitorGone
	}
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	// Read after opening: the descriptor is of this process, whatever comes.
	start, err := startTime(id.PID)
	if err != nil || start != id.Start {
		unix.Close(fd)
		return nil, vm.ErrMonitorGone
	}
	return newProcess(id.PID, fd, nil, log)
}

// wait closes ended when the pidfd says that the process has ended.
func (p *process) wait() {
	defer p.wg.Done()
	rc, err := p.fd.SyscallConn()
	if err != nil {
		return // closed before it began
	}
	if rc.Read(func(fd uintptr) bool { return hasEnded(int(fd)) }) != nil {
		return // closed: the process lives on
	}
	var ws unix.WaitStatus
	// ECHILD: of an earlier daemon, reaped by init.
	if pid, err := unix.Wait4(p.id.PID, &ws, unix.WNOHANG, nil); err == nil && pid == p.id.PID {
		p.status.Store(int32(ws))
	}
	close(p.ended)
}

// hasEnded asks without waiting.
func hasEnded(pidfd int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if err == unix.EINTR {
			continue
		}
		return n > 0
	}
}

// kill sends SIGKILL; a process that has ended is no error.
func (p *process) kill() error {
	rc, err := p.fd.SyscallConn()
	if err != nil {
		return nil // closed
	}
	var kerr error
	if err := rc.Control(func(fd uintptr) { kerr = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) }); err != nil {
		return nil
	}
	if kerr == nil || errors.Is(kerr, unix.ESRCH) {
		return nil
	}
	return os.NewSyscallError("pidfd_send_signal", kerr)
}

// end kills and reaps a process that is of no use.
func (p *process) end() error {
	defer p.close()
	if err := p.kill(); err != nil {
		return err
	}
	timer := time.NewTimer(reapTimeout)
	defer timer.Stop()
	select {
	case <-p.ended:
		return nil
	case <-timer.C:
		return errors.New("process does not end after SIGKILL")
	}
}

// close leaves the process alone.
func (p *process) close() {
	p.once.Do(func() {
		p.fd.Close() // wakes wait
		if p.out != nil {
			p.out.Close() // wakes copyLog
		}
		p.wg.Wait()
	})
}

// explain adds how the process ended to what it could not answer. The
// connection ends a moment before the process does.
func (p *process) explain(err error) error {
	timer := time.NewTimer(explainTime)
	defer timer.Stop()
	select {
	case <-p.ended:
	case <-timer.C:
		return err
	}
	ws := unix.WaitStatus(p.status.Load())
	switch {
	case p.status.Load() < 0:
		return fmt.Errorf("%w (process ended)", err)
	case ws.Signaled():
		return fmt.Errorf("%w (killed by %s)", err, ws.Signal())
	default:
		return fmt.Errorf("%w (exit status %d)", err, ws.ExitStatus())
	}
}

// startTime reads field 22 of /proc/PID/stat. The name, field 2, may hold
// anything, also ")": fields are counted from the last one.
func startTime(pid int) (uint64, error) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(raw[bytes.LastIndexByte(raw, ')')+1:])
	if len(fields) < 20 {
		return 0, errors.New("/proc stat is short")
	}
	if fields[0][0] == 'Z' || fields[0][0] == 'X' {
		return 0, vm.ErrMonitorGone
	}
	return strconv.ParseUint(string(fields[19]), 10, 64)
}
