// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/abi"
	"vmctl/monitor/boot"
	"vmctl/monitor/console"
	"vmctl/monitor/ctl"
	"vmctl/monitor/machine"
	"vmctl/monitor/mem"
	"vmctl/monitor/spec"
	"vmctl/monitor/virtio/blk"
	"vmctl/monitor/virtio/net"
)

// handle answers one request. after, if not nil, is done when the reply is on
// its way: it ends the process.
func (m *monitor) handle(request ctl.Message, fds []int) (reply ctl.Message, refused *ctl.Error, after func()) {
	if c, ok := request.(*ctl.Configure); ok {
		return m.handleConfigure(c, fds)
	}
	ctl.CloseAll(fds)
	m.mu.Lock()
	defer m.mu.Unlock()
	switch r := request.(type) {
	case *ctl.Hello:
		return ctl.HelloReply{Protocol: ctl.Version, Version: version, State: m.state}, nil, nil
	case *ctl.Status:
		return m.status(), nil, nil
	case *ctl.ConsoleGrant:
		refused = m.grant(r)
	case *ctl.ConsoleClose:
		m.console.End(r.Session, r.User, r.Reason)
	case *ctl.Start:
		if refused = m.need(ctl.Configured); refused == nil {
			m.start()
		}
	case *ctl.PowerButton:
		if refused = m.need(ctl.Running); refused == nil {
			m.machine.PowerButton()
		}
	case *ctl.Reset:
		if refused = m.need(ctl.Running); refused == nil {
			m.machine.Reset()
		}
	case *ctl.Balloon:
		if m.machine == nil {
			refused = m.need(ctl.Running)
			break
		}
		target, actual := m.machine.Balloon(r.Target, r.Target == ctl.KeepTarget)
		return ctl.BalloonReply{Target: target, Actual: actual, Memory: ctl.GuestMemory(m.machine.GuestMemory())}, nil, nil
	case *ctl.Shutdown:
		after = m.shutdown()
	default:
		refused = &ctl.Error{Code: ctl.UnknownRequest, Text: "not a request"}
	}
	return ctl.DoneWith(request), refused, after
}

func (m *monitor) handleConfigure(c *ctl.Configure, fds []int) (ctl.Message, *ctl.Error, func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if refused := m.need(ctl.Idle); refused != nil {
		ctl.CloseAll(fds)
		return nil, refused, nil
	}
	if refused := m.configure(c, fds); refused != nil {
		// The VM may be half set up: it is of no more use, and so are we.
		end := machine.End{Reason: abi.ReasonInternalError, Text: refused.Error()}
		return nil, refused, func() { m.end(end) }
	}
	return ctl.DoneWith(c), nil, nil
}

// need refuses what does not go in this state.
func (m *monitor) need(s ctl.State) *ctl.Error {
	if m.state == s {
		return nil
	}
	return &ctl.Error{Code: ctl.StateConflict, Text: "monitor is " + m.state.String() + ", not " + s.String()}
}

func (m *monitor) grant(g *ctl.ConsoleGrant) *ctl.Error {
	err := m.console.Grant(console.Grant{
		Hash: g.TokenHash, Session: g.Session, User: g.User,
		Expires: time.UnixMilli(g.ExpiresUnix), Write: g.Mode == ctl.ReadWrite,
	})
	if err != nil {
		return &ctl.Error{Code: ctl.LimitExceeded, Text: err.Error()}
	}
	return nil
}

// shutdown is the way to end now.
func (m *monitor) shutdown() func() {
	if m.state == ctl.Running {
		stop := m.machine.Stop
		return func() { stop(abi.ReasonOperator, "shut down") }
	}
	return func() { m.end(machine.End{Text: "shut down before start"}) }
}

// codes maps what a machine cannot be made of to the protocol's codes.
var codes = []struct {
	err  error
	code ctl.Code
}{
	{boot.ErrKernelTooBig, ctl.KernelTooLarge},
	{boot.ErrInitrdTooBig, ctl.InitrdTooLarge},
	{boot.ErrCmdline, ctl.CmdlineTooLong},
	{boot.ErrNotKernel, ctl.BootFileInvalid},
	{boot.ErrCutKernel, ctl.BootFileInvalid},
	{boot.ErrOldKernel, ctl.BootFileInvalid},
	{boot.ErrNot64Bit, ctl.BootFileInvalid},
	{boot.ErrKernelHeader, ctl.BootFileInvalid},
	{boot.ErrNotFirmware, ctl.BootFileInvalid},
	{mem.ErrSize, ctl.MemoryInvalid},
	{spec.ErrVCPUs, ctl.VCPUsInvalid},
	{spec.ErrMemory, ctl.MemoryInvalid},
	{spec.ErrCmdline, ctl.CmdlineTooLong},
	{spec.ErrNUL, ctl.CmdlineInvalid},
	{spec.ErrBoot, ctl.SpecInvalid},
	{spec.ErrPolicy, ctl.SpecInvalid},
	{spec.ErrVersion, ctl.SpecInvalid},
	{spec.ErrConsole, ctl.SpecInvalid},
	{spec.ErrDisks, ctl.DiskInvalid},
	{spec.ErrDiskID, ctl.DiskInvalid},
	{spec.ErrBackend, ctl.SpecInvalid},
	{spec.ErrNICs, ctl.NICInvalid},
	{spec.ErrMAC, ctl.NICInvalid},
	{machine.ErrDisk, ctl.DiskInvalid},
	{blk.ErrFile, ctl.DiskInvalid},
	{blk.ErrReadOnly, ctl.DiskInvalid},
	{machine.ErrNIC, ctl.NICInvalid},
	{net.ErrTap, ctl.NICInvalid},
	{net.ErrVhost, ctl.NICInvalid},
	{unix.ENOTTY, ctl.DescriptorWrong},
	{unix.EBADF, ctl.DescriptorWrong},
	{unix.EOPNOTSUPP, ctl.Unsupported},
}

// refusal is the answer to an error of Configure.
func refusal(err error) *ctl.Error {
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return &ctl.Error{Code: c.code, Text: err.Error()}
		}
	}
	var kernel *abi.Error
	if errors.As(err, &kernel) {
		return &ctl.Error{Code: ctl.KernelFailed, Text: err.Error()}
	}
	return &ctl.Error{Code: ctl.Internal, Text: err.Error()}
}
