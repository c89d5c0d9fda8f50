// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// capabilities of vmctld, beyond those of any user:
// NET_ADMIN for the kernel's events, taps and bridges; BPF, PERFMON and
// DAC_READ_SEARCH for exit statistics; SETUID, SETGID and KILL for monitors
// that run under user ids of their own.
var capabilities = []uintptr{
	unix.CAP_NET_ADMIN, unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_DAC_READ_SEARCH,
	unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_KILL,
}

// StartDaemon starts vmctld and waits until it takes connections.
func (l *Layout) StartDaemon(ctx context.Context) (*Process, error) {
	p, err := start(l.vmctld, capabilities, filepath.Join(l.bin, "vmctld"),
		"--vmx", filepath.Join(l.bin, "vmx"), "--grant", "local:admin=admin", "--bridge", bridge)
	if err != nil {
		return nil, err
	}
	return p, waitSocket(ctx, p, "/run/vmctl/front.sock")
}

// FirstPassword is where vmhttp leaves the first password.
const FirstPassword = "/var/lib/vmhttp/first-password"

// StartFront starts vmhttp and waits until answers says that it does.
func (l *Layout) StartFront(ctx context.Context, listen string, answers func() bool) (*Process, error) {
	p, err := start(l.vmhttp, nil, filepath.Join(l.bin, "vmhttp"),
		"--listen", listen, "--first-password-file", FirstPassword)
	if err != nil {
		return nil, err
	}
	return p, poll(ctx, p, answers)
}

// Process is a daemon that was started.
type Process struct {
	cmd  *exec.Cmd
	done chan error
}

// Done gives the process's end, once.
func (p *Process) Done() <-chan error { return p.done }

// Kill ends it as a crash would, and waits until it is gone.
func (p *Process) Kill() error {
	err := p.cmd.Process.Kill()
	<-p.done
	return err
}

// start runs a program as a user with ambient capabilities.
func start(a account, caps []uintptr, path string, args ...string) (*Process, error) {
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "CREDENTIALS_DIRECTORY=/run/credentials/" + a.name}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: a.id, Gid: a.id, Groups: a.groups},
		AmbientCaps: caps,
		Setpgid:     true,
	}
	if len(caps) > 0 {
		dir, err := os.Open(cgroupRoot + "/daemon")
		if err != nil {
			return nil, err
		}
		defer dir.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", a.name, err)
	}
	p := &Process{cmd, make(chan error, 1)}
	go func() {
		err := cmd.Wait()
		if err == nil {
			err = errors.New("exit status 0")
		}
		p.done <- err
	}()
	return p, nil
}

// Stop asks a daemon to end and waits; one that does not obey is killed.
func (p *Process) Stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		if errors.Is(err, os.ErrProcessDone) {
			return nil
		}
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(10 * time.Second):
		return errors.Join(fmt.Errorf("%s did not end in 10 s", p.cmd.Path), p.cmd.Process.Kill())
	}
}

// waitSocket returns once something accepts on a unix socket.
func waitSocket(ctx context.Context, p *Process, path string) error {
	return poll(ctx, p, func() bool {
		c, err := net.Dial("unix", path)
		if err != nil {
			return false
		}
		c.Close()
		return true
	})
}

// poll asks again every 20 ms, until the answer is yes, the process ended or
// 20 s are over: a start has no event that a stranger could wait for.
func poll(ctx context.Context, p *Process, ok func() bool) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		case err := <-p.done:
			p.done <- err
			return fmt.Errorf("%s ended at its start: %w", filepath.Base(p.cmd.Path), err)
		case <-deadline:
			return fmt.Errorf("%s does not answer", filepath.Base(p.cmd.Path))
		}
	}
	return nil
}
