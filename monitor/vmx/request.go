// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/abi"
	"vmctl/monitor/boot"
	"vmctl/monitor/console"
	"vmctl/monitor/ctl"
	"vmctl/monitor/machine"
	"vmctl/monitor/mem"
	"vmctl/monitor/overlay"
	"vmctl/monitor/pci"
	"vmctl/monitor/qcow2"
	"vmctl/monitor/saved"
	"vmctl/monitor/spec"
	"vmctl/monitor/virtio/blk"
	"vmctl/monitor/virtio/net"
)

// handle answers one request. after, if not nil, is done when the reply is on
// its way: it ends the process.
func (m *monitor) handle(request ctl.Message, fds []int) (reply ctl.Message, refused *ctl.Error, after func()) {
	switch r := request.(type) { // that nobody waits for
	case *ctl.VsockDialed:
		return ctl.DoneWith(r), m.dialed(r, fds), nil
	case *ctl.Save:
		return ctl.DoneWith(r), m.save(fds), nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch r := request.(type) {
	case *ctl.Configure:
		return m.handleConfigure(request, r.Spec, nil, fds)
	case *ctl.Restore:
		if len(fds) < 3 {
			ctl.CloseAll(fds)
			return nil, &ctl.Error{Code: ctl.DescriptorWrong, Text: "restore takes the VM, the state, the memory, and what is to boot"}, nil
		}
		return m.handleConfigure(request, r.Spec, savedFiles(fds[1], fds[2]), slices.Delete(fds, 1, 3))
	}
	ctl.CloseAll(fds)
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
	case *ctl.DiskSwitch:
		if refused = m.need(ctl.Running); refused == nil {
			refused = refusal(m.machine.SwitchDisk(r.Disk, r.Backend))
		}
	case *ctl.DiskMerge:
		if refused = m.need(ctl.Running); refused == nil {
			return m.merge(r)
		}
	case *ctl.AttachDisk:
		if refused = m.need(ctl.Running); refused == nil {
			return m.attached(r, func() (uint8, error) { return m.machine.AttachDisk(r.Disk) })
		}
	case *ctl.AttachNIC:
		if refused = m.need(ctl.Running); refused == nil {
			return m.attached(r, func() (uint8, error) { return m.machine.AttachNIC(r.NIC) })
		}
	case *ctl.Detach:
		if refused = m.need(ctl.Running); refused == nil {
			detach := m.machine.DetachDisk
			if r.IsNIC {
				detach = m.machine.DetachNIC
			}
			refused = refusal(detach(r.Number))
		}
	case *ctl.SetDisk:
		if refused = m.need(ctl.Running); refused == nil {
			refused = refusal(m.machine.SetDisk(r.Disk, r.Limit))
		}
	case *ctl.SetNIC:
		if refused = m.need(ctl.Running); refused == nil {
			refused = refusal(m.machine.SetNIC(r.NIC, net.Options{Receive: r.Receive, Send: r.Send, Down: r.Down}))
		}
	case *ctl.Shutdown:
		after = m.shutdown()
	default:
		refused = &ctl.Error{Code: ctl.UnknownRequest, Text: "not a request"}
	}
	return ctl.DoneWith(request), refused, after
}

func (m *monitor) attached(request ctl.Message, attach func() (uint8, error)) (ctl.Message, *ctl.Error, func()) {
	number, err := attach()
	if err != nil {
		return nil, refusal(err), nil
	}
	m.trimSoon()
	return ctl.AttachedWith(request, number), nil, nil
}

func savedFiles(state, memory int) *saved.Files {
	return &saved.Files{State: os.NewFile(uintptr(state), "state"), Memory: os.NewFile(uintptr(memory), "memory")}
}

// handleConfigure owns the descriptors.
func (m *monitor) handleConfigure(request ctl.Message, s spec.Spec, from *saved.Files, fds []int) (ctl.Message, *ctl.Error, func()) {
	if refused := m.need(ctl.Idle); refused != nil {
		ctl.CloseAll(fds)
		if from != nil {
			from.Close()
		}
		return nil, refused, nil
	}
	if refused := m.configure(s, from, fds); refused != nil {
		// The VM may be half set up: it is of no more use, and so are we.
		end := machine.End{Reason: abi.ReasonInternalError, Text: refused.Error()}
		return nil, refused, func() { m.end(end) }
	}
	return ctl.DoneWith(request), nil, nil
}

// save owns the descriptors. What comes over the same connection waits meanwhile; a
// vmctld that was started anew does not. A VM that is stopped or goes on ends it.
func (m *monitor) save(fds []int) *ctl.Error {
	if len(fds) != 2 {
		ctl.CloseAll(fds)
		return &ctl.Error{Code: ctl.DescriptorWrong, Text: "save takes two files, for the state and the memory"}
	}
	to := savedFiles(fds[0], fds[1])
	defer to.Close()
	m.mu.Lock()
	refused, made := m.need(ctl.Running), m.machine
	m.mu.Unlock()
	if refused != nil {
		return refused
	}
	err := made.Save(*to)
	m.trimSoon()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, machine.ErrNotPaused):
		return &ctl.Error{Code: ctl.StateConflict, Text: err.Error()}
	}
	return &ctl.Error{Code: ctl.SaveFailed, Text: err.Error()}
}

// dialed hands a socket to the guest's device. It owns fds.
func (m *monitor) dialed(d *ctl.VsockDialed, fds []int) *ctl.Error {
	m.mu.Lock()
	made := m.machine
	m.mu.Unlock()
	switch {
	case made == nil:
		ctl.CloseAll(fds)
		return &ctl.Error{Code: ctl.StateConflict, Text: "there is no machine"}
	case len(fds) > 1:
		ctl.CloseAll(fds)
		return &ctl.Error{Code: ctl.DescriptorWrong, Text: "it takes one socket"}
	case len(fds) == 0:
		fds = []int{-1}
	}
	made.Dialed(d.Number, fds[0])
	return nil
}

// merge does a step of the merge of a disk, and says how it is then.
func (m *monitor) merge(r *ctl.DiskMerge) (ctl.Message, *ctl.Error, func()) {
	var err error
	switch r.Do {
	case ctl.MergeBegin:
		err = m.machine.BeginMerge(r.Disk)
	case ctl.MergeFinish:
		err = m.machine.FinishMerge(r.Disk)
		m.trimSoon()
	case ctl.MergeAbort:
		err = m.machine.AbortMerge(r.Disk)
		m.trimSoon()
	}
	if err != nil {
		return nil, refusal(err), nil
	}
	c, err := m.machine.Chain(r.Disk)
	if err != nil {
		return nil, refusal(err), nil
	}
	reply := ctl.DiskMergeReply{State: ctl.MergeState(c.State), Done: c.Done, Total: c.Total, Backends: c.Backends}
	if c.Err != nil {
		reply.Text = c.Err.Error()
	}
	return reply, nil, nil
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
	{boot.ErrNoEntry, ctl.BootFileInvalid},
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
	{spec.ErrFormat, ctl.FormatInvalid},
	{spec.ErrQCOW2, ctl.DiskInvalid},
	{spec.ErrBacking, ctl.BackingInvalid},
	{spec.ErrBackend, ctl.SpecInvalid},
	{spec.ErrNICs, ctl.NICInvalid},
	{spec.ErrMAC, ctl.NICInvalid},
	{spec.ErrDiskLimit, ctl.DiskInvalid},
	{spec.ErrNICLimit, ctl.NICInvalid},
	{spec.ErrCID, ctl.SpecInvalid},
	{spec.ErrOwn, ctl.BackingInvalid},
	{machine.ErrDisk, ctl.DiskInvalid},
	{machine.ErrNoDisk, ctl.DiskInvalid},
	{machine.ErrFull, ctl.LimitExceeded},
	{pci.ErrFull, ctl.LimitExceeded},
	{machine.ErrTwice, ctl.SpecInvalid},
	{machine.ErrNoNIC, ctl.NICInvalid},
	{machine.ErrReadOnly, ctl.DiskInvalid},
	{machine.ErrMerging, ctl.StateConflict},
	{machine.ErrNotOwn, ctl.MergeInvalid},
	{machine.ErrNotMerged, ctl.MergeInvalid},
	{machine.ErrDeep, ctl.LimitExceeded},
	{overlay.ErrLower, ctl.MergeInvalid},
	{overlay.ErrUsed, ctl.DiskInvalid},
	{blk.ErrFile, ctl.DiskInvalid},
	{blk.ErrReadOnly, ctl.DiskInvalid},
	{qcow2.ErrMagic, ctl.FormatInvalid},
	{qcow2.ErrVersion, ctl.FormatInvalid},
	{qcow2.ErrHeader, ctl.FormatInvalid},
	{qcow2.ErrCorrupt, ctl.FormatInvalid},
	{qcow2.ErrFile, ctl.DiskInvalid},
	{qcow2.ErrEncrypted, ctl.FormatRefused},
	{qcow2.ErrDirty, ctl.FormatRefused},
	{qcow2.ErrMarked, ctl.FormatRefused},
	{qcow2.ErrDataFile, ctl.FormatRefused},
	{qcow2.ErrFeature, ctl.FormatRefused},
	{qcow2.ErrCompression, ctl.FormatRefused},
	{qcow2.ErrFiles, ctl.BackingInvalid},
	{qcow2.ErrNoBacking, ctl.BackingInvalid},
	{qcow2.ErrBacking, ctl.BackingInvalid},
	{qcow2.ErrBackingFormat, ctl.BackingInvalid},
	{overlay.ErrFile, ctl.FormatInvalid},
	{overlay.ErrVersion, ctl.FormatRefused},
	{overlay.ErrHeader, ctl.FormatInvalid},
	{overlay.ErrSize, ctl.DiskInvalid},
	{overlay.ErrBase, ctl.BackingInvalid},
	{machine.ErrNIC, ctl.NICInvalid},
	{net.ErrTap, ctl.NICInvalid},
	{net.ErrVhost, ctl.NICInvalid},
	{saved.ErrNotSave, ctl.SaveInvalid},
	{saved.ErrTruncated, ctl.SaveInvalid},
	{saved.ErrAltered, ctl.SaveInvalid},
	{saved.ErrVersion, ctl.SaveInvalid},
	{saved.ErrForeign, ctl.SaveInvalid},
	{unix.ENOTTY, ctl.DescriptorWrong},
	{unix.EBADF, ctl.DescriptorWrong},
	{unix.EOPNOTSUPP, ctl.Unsupported},
}

// refusal is the answer to an error, or nil to none.
func refusal(err error) *ctl.Error {
	if err == nil {
		return nil
	}
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
