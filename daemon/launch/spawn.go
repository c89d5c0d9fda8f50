// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"vmctl/daemon/vm"
	"vmctl/monitor/ctl"
	"vmctl/monitor/spec"
)

// Start spawns a monitor and waits for its first word. errors.Is: the error of
// ctx; an error leaves nothing running.
func (l *Launcher) Start(ctx context.Context, spec vm.MonitorSpec) (vm.Monitor, error) {
	h, err := l.inherit(spec)
	if err != nil {
		return nil, err
	}
	defer h.close()
	p, err := l.spawn(spec, h)
	if err != nil {
		h.log.Close()
		return nil, fmt.Errorf("spawn %s: %w", l.c.VMX, err)
	}
	m, err := l.connect(ctx, spec, p)
	if err != nil {
		return nil, errors.Join(err, p.end())
	}
	return m, nil
}

// spawn starts the program. Descriptors 0 and 1 are /dev/null.
func (l *Launcher) spawn(s vm.MonitorSpec, h *inherited) (*process, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	pidfd := -1
	sys := l.confine(s)
	sys.PidFD = &pidfd
	leaf, err := l.makeCgroup(s)
	if err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	if leaf != nil {
		defer leaf.Close()
		sys.UseCgroupFD, sys.CgroupFD = true, int(leaf.Fd())
	}
	p, err := os.StartProcess(l.c.VMX, []string{"vmx", "--uuid", s.UUID, "--name", s.Name}, &os.ProcAttr{
		Dir: "/", Env: spec.Environment(), Files: append([]*os.File{null, null}, h.files...), Sys: sys,
	})
	if err != nil {
		return nil, err
	}
	pid := p.Pid
	// Our own descriptor of the process outlives this; a released os.Process
	// frees nothing that we need.
	if err := p.Release(); err != nil {
		return nil, err
	}
	if pidfd < 0 {
		if pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
			return nil, os.NewSyscallError("pidfd_open", err)
		}
	}
	logged := l.c.Log.With("vm", s.UUID, "pid", pid)
	return newProcess(pid, pidfd, h.log, logged)
}

// confine gives the monitor its own user id, groups and namespaces. Inside, it
// is user 0 of a namespace that holds nobody else: enough to enter an empty
// root and nothing outside. The supplementary groups of the daemon, which open
// /dev/vmm, are given up.
func (l *Launcher) confine(spec vm.MonitorSpec) *syscall.SysProcAttr {
	sys := &syscall.SysProcAttr{Setsid: true} // a terminal's signals are for the daemon
	if l.c.Unconfined {
		return sys
	}
	id := []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(spec.UID), Size: 1}}
	sys.Cloneflags = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID |
		unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP
	sys.UidMappings, sys.GidMappings = id, id
	sys.GidMappingsEnableSetgroups = true
	sys.Credential = &syscall.Credential{Uid: 0, Gid: 0, Groups: []uint32{}}
	return sys
}

// Attach connects to a monitor that an earlier daemon spawned. errors.Is:
// vm.ErrMonitorGone when its process has ended.
func (l *Launcher) Attach(ctx context.Context, spec vm.MonitorSpec, id vm.Process) (vm.Monitor, error) {
	p, err := findProcess(id, l.c.Log.With("vm", spec.UUID, "pid", id.PID))
	if err != nil {
		return nil, err
	}
	m, err := l.connect(ctx, spec, p)
	if err != nil {
		p.close()
		return nil, err
	}
	return m, nil
}

// connect opens the control connection and says hello: the reply proves that
// the monitor, and not only its socket, is there.
func (l *Launcher) connect(ctx context.Context, spec vm.MonitorSpec, p *process) (*Monitor, error) {
	m := &Monitor{process: p, reports: make(chan vm.Report, reportsKept), vsock: l.vsock(spec.UUID), log: p.log}
	c, err := ctl.Dial(l.ctlSocket(spec.UUID), m.event)
	if err != nil {
		return nil, fmt.Errorf("connect to monitor: %w", err)
	}
	m.client = c
	hello, err := c.Hello(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("hello: %w", p.explain(err)), c.Close())
	}
	p.log.Debug("monitor answers", "op", "hello", "version", hello.Version, "state", hello.State.String())
	m.hangup.Add(1)
	go m.watch()
	return m, nil
}
