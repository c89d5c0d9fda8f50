// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"vmctl/daemon/api"
	"vmctl/daemon/vm"
	"vmctl/monitor/ctl"
	"vmctl/monitor/rate"
	"vmctl/monitor/spec"
)

const (
	reportsKept = 256 // that wait for the VM's goroutine
	maxText     = 256 // bytes of a text that a monitor sends

	seedID = "seed" // serial number of the disk of a VM's seed
)

// Monitor is the control connection of one monitor, and its process.
type Monitor struct {
	process *process
	client  *ctl.Client
	reports chan vm.Report
	vsock   vsock
	dials   chan *ctl.VsockDial // of the guest's; nil before the first; the receiver's
	dropped atomic.Uint64
	hangup  sync.WaitGroup
	log     *slog.Logger
}

// Process names the process.
func (m *Monitor) Process() vm.Process { return m.process.id }

// Reports yields what the monitor tells; closed when the connection ends.
func (m *Monitor) Reports() <-chan vm.Report { return m.reports }

// Gone is closed when the process has ended and was reaped.
func (m *Monitor) Gone() <-chan struct{} { return m.process.ended }

// Kill ends the process.
func (m *Monitor) Kill() error { return m.process.kill() }

// Close ends the connection and leaves the process alone.
func (m *Monitor) Close() error {
	err := m.client.Close()
	m.hangup.Wait()
	m.process.close()
	return err
}

// watch closes reports after the last event.
func (m *Monitor) watch() {
	defer m.hangup.Done()
	<-m.client.Done()
	m.client.Close() // waits for the receiver, which sends to reports
	if n := m.dropped.Load(); n > 0 {
		m.log.Warn("monitor told too much", "op", "report", "dropped", n)
	}
	close(m.reports)
	if m.dials != nil {
		close(m.dials)
	}
}

// event is called by the receiver and must not block: who floods loses.
func (m *Monitor) event(msg ctl.Message) {
	if d, ok := msg.(*ctl.VsockDial); ok {
		m.asked(d)
		return
	}
	r, ok := report(msg)
	if !ok {
		return
	}
	select {
	case m.reports <- r:
	default:
		m.dropped.Add(1)
	}
}

func report(msg ctl.Message) (vm.Report, bool) {
	switch e := msg.(type) {
	case *ctl.GuestReset:
		return vm.Report{Resets: uint64(e.Count)}, e.Count > 0
	case *ctl.DeviceBroken:
		return vm.Report{Broken: &api.BrokenData{Device: plain(e.Device), Detail: plain(e.Text)}}, true
	case *ctl.VMStopped:
		return vm.Report{Stopped: plain(e.Text)}, true
	case *ctl.Detached:
		return vm.Report{LetGo: true}, true
	case *ctl.ConsoleOpened:
		return vm.Report{ConsoleOpened: &api.ConsoleData{Session: plain(e.Session), User: plain(e.User),
			Viewer: uint64(e.Viewer), Mode: mode(e.Mode)}}, true
	case *ctl.ConsoleClosed:
		return vm.Report{ConsoleClosed: &api.ConsoleData{Session: plain(e.Session), User: plain(e.User),
			Viewer: uint64(e.Viewer), Mode: api.ConsoleReadWrite, Reason: plain(e.Reason)}}, true
	}
	return vm.Report{}, false
}

func mode(m ctl.Mode) api.ConsoleMode {
	if m == ctl.ReadOnly {
		return api.ConsoleReadOnly
	}
	return api.ConsoleReadWrite
}

// Configure hands over the run descriptor and the boot files.
func (m *Monitor) Configure(ctx context.Context, s api.VMSpec, backends vm.Backends, run *os.File, files *vm.Files) error {
	machine := spec.Spec{VCPUs: uint32(s.VCPUs), MemoryBytes: uint64(s.MemoryBytes), Firmware: s.Boot.Kernel == "", Cmdline: s.Boot.Cmdline, OnReset: spec.Restart}
	if s.OnReset == api.ResetStop {
		machine.OnReset = spec.Stop
	}
	if s.Console == api.ConsoleVirtio {
		machine.Console = spec.Virtio
	}
	for i, d := range s.Disks {
		machine.Disks = put(machine.Disks, backends.Numbers.Disks[i].Number, disk(d, backends.Disks[i]))
	}
	if backends.Seed != 0 {
		machine.Disks = put(machine.Disks, backends.Numbers.Seed, spec.Disk{Backend: backends.Seed, ReadOnly: true, ID: seedID})
	}
	for i, n := range s.NICs {
		card, err := nic(n, backends.NICs[i])
		if err != nil {
			return err
		}
		machine.NICs = put(machine.NICs, backends.Numbers.NICs[i].Number, card)
	}
	vsock := -1
	if s.Vsock != nil {
		machine.CID = uint32(s.Vsock.CID)
		socket, err := m.vsock.listen()
		if err != nil {
			return fmt.Errorf("vsock: %w", err)
		}
		defer socket.Close()
		vsock = int(socket.Fd())
	}
	initrd := -1
	if files.Initrd != nil {
		initrd = int(files.Initrd.Fd())
	}
	kernel := int(files.Kernel.Fd())
	if f := files.Saved; f != nil {
		return m.told(m.client.Restore(ctx, machine, int(run.Fd()), int(f.State.Fd()), int(f.Memory.Fd()), kernel, initrd, vsock))
	}
	return m.told(m.client.Configure(ctx, machine, int(run.Fd()), kernel, initrd, vsock))
}

// put puts a device into a list at its number, behind as many as are missing.
func put[T any](list []T, n int, v T) []T {
	if n >= len(list) {
		list = append(list, make([]T, n+1-len(list))...)
	}
	list[n] = v
	return list
}

// disk is a disk of the files that are its own, the uppermost first.
func disk(d api.DiskSpec, own []uint32) spec.Disk {
	made := spec.Disk{Backend: own[0], Own: own[1:], ReadOnly: d.ReadOnly, ID: d.Serial, Format: format(d.Format), Limit: limit(d.Limit)}
	for _, b := range d.Backing {
		made.Backing = append(made.Backing, format(b.Format))
	}
	return made
}

func nic(n api.NICSpec, backend uint32) (spec.NIC, error) {
	mac, err := net.ParseMAC(n.MAC)
	if err != nil {
		return spec.NIC{}, err
	}
	return spec.NIC{Backend: backend, MAC: [6]byte(mac), Receive: limit(n.ReceiveLimit), Send: limit(n.SendLimit), Down: n.LinkDown}, nil
}

func format(f api.DiskFormat) spec.Format {
	switch f {
	case api.FormatQCOW2:
		return spec.QCOW2
	case api.FormatOverlay:
		return spec.Overlay
	}
	return spec.Raw
}

func limit(l *api.RateLimit) rate.Limit {
	if l == nil {
		return rate.Limit{}
	}
	return rate.Limit{Bytes: uint64(l.BytesPerSecond), Ops: uint64(l.OpsPerSecond), Burst: uint32(l.BurstMillis)}
}

// AttachDisk puts a disk into the machine of a guest that runs.
func (m *Monitor) AttachDisk(ctx context.Context, d api.DiskSpec, attached uint32) (int, error) {
	n, err := m.client.AttachDisk(ctx, disk(d, []uint32{attached}))
	return int(n), m.refused(err)
}

// AttachNIC puts a network card into it.
func (m *Monitor) AttachNIC(ctx context.Context, n api.NICSpec, attached uint32) (int, error) {
	card, err := nic(n, attached)
	if err != nil {
		return 0, err
	}
	number, err := m.client.AttachNIC(ctx, card)
	return int(number), m.refused(err)
}

// Detach asks the guest to let go of a device.
func (m *Monitor) Detach(ctx context.Context, isNIC bool, number int) error {
	err := m.client.Detach(ctx, ctl.Detach{IsNIC: isNIC, Number: uint8(number)})
	gone := ctl.DiskInvalid
	if isNIC {
		gone = ctl.NICInvalid
	}
	if errors.Is(err, &ctl.Error{Code: gone}) {
		return vm.ErrNoDevice
	}
	return m.refused(err)
}

// refused is told, which says that a monitor answered.
func (m *Monitor) refused(err error) error {
	told := m.told(err)
	if e := new(api.Error); errors.As(err, new(*ctl.Error)) && errors.As(told, &e) {
		e.Err = errors.Join(vm.ErrRefused, err)
	}
	return told
}

// SetDisk changes the limit of a disk.
func (m *Monitor) SetDisk(ctx context.Context, number int, d api.DiskSpec) error {
	return m.told(m.client.SetDisk(ctx, ctl.SetDisk{Disk: uint8(number), Limit: limit(d.Limit)}))
}

// SetNIC changes limits and link of a network card.
func (m *Monitor) SetNIC(ctx context.Context, number int, n api.NICSpec) error {
	return m.told(m.client.SetNIC(ctx, ctl.SetNIC{NIC: uint8(number), Receive: limit(n.ReceiveLimit), Send: limit(n.SendLimit), Down: n.LinkDown}))
}

// SetBalloon says how much memory the guest is to give back.
func (m *Monitor) SetBalloon(ctx context.Context, bytes int64) error {
	_, err := m.client.Balloon(ctx, uint64(bytes))
	return m.told(err)
}

// Balloon says how much it has given.
func (m *Monitor) Balloon(ctx context.Context) (api.Balloon, error) {
	r, err := m.client.Balloon(ctx, ctl.KeepTarget)
	if err != nil {
		return api.Balloon{}, m.told(err)
	}
	b := api.Balloon{TargetBytes: count(r.Target), ActualBytes: count(r.Actual)}
	if g := r.Memory; g != (ctl.GuestMemory{}) {
		b.Memory = &api.GuestMemory{TotalBytes: count(g.Total), FreeBytes: count(g.Free), AvailableBytes: count(g.Available),
			CachesBytes: count(g.Caches), MajorFaults: count(g.MajorFaults)}
	}
	return b, nil
}

// count bounds a number of a guest's.
func count(n uint64) int64 { return int64(min(n, math.MaxInt64)) }

// Start lets the guest run.
func (m *Monitor) Start(ctx context.Context) error { return m.told(m.client.Start(ctx)) }

// Save writes the machine to empty files.
func (m *Monitor) Save(ctx context.Context, f *vm.SavedFiles) error {
	return m.told(m.client.Save(ctx, int(f.State.Fd()), int(f.Memory.Fd())))
}

// SwitchDisk lets a disk go on in a file that was attached.
func (m *Monitor) SwitchDisk(ctx context.Context, disk int, attached uint32) error {
	return m.told(m.client.DiskSwitch(ctx, uint8(disk), attached))
}

// MergeDisk does a step of the merge of a disk.
func (m *Monitor) MergeDisk(ctx context.Context, disk int, step vm.MergeStep) (vm.Merge, error) {
	// The numbers of steps and states are those of package ctl.
	r, err := m.client.DiskMerge(ctx, uint8(disk), ctl.MergeStep(step))
	if err != nil {
		return vm.Merge{}, m.told(err)
	}
	return vm.Merge{State: vm.MergeState(r.State), Done: r.Done, Total: r.Total, Disks: r.Backends, Text: plain(r.Text)}, nil
}

// Reset resets the guest.
func (m *Monitor) Reset(ctx context.Context) error { return m.told(m.client.Reset(ctx)) }

// PowerButton presses the guest's power button.
func (m *Monitor) PowerButton(ctx context.Context) error { return m.told(m.client.PowerButton(ctx)) }

// Shutdown asks the monitor to end.
func (m *Monitor) Shutdown(ctx context.Context) error { return m.told(m.client.Shutdown(ctx)) }

// Grant admits one viewer.
func (m *Monitor) Grant(ctx context.Context, g vm.ConsoleGrant) error {
	mode := ctl.ReadWrite
	if g.Mode == api.ConsoleReadOnly {
		mode = ctl.ReadOnly
	}
	return m.told(m.client.ConsoleGrant(ctx, ctl.ConsoleGrant{TokenHash: g.Hash, Session: g.Session, User: g.User,
		ExpiresUnix: g.Expires.UnixMilli(), Mode: mode}))
}

// CloseConsoles ends the consoles of a session, or all when it is empty.
func (m *Monitor) CloseConsoles(ctx context.Context, session, reason string) error {
	return m.told(m.client.ConsoleClose(ctx, ctl.ConsoleClose{Session: session, Reason: reason}))
}

// Viewers returns how many consoles are open.
func (m *Monitor) Viewers(ctx context.Context) (int, error) {
	s, err := m.client.Status(ctx)
	if err != nil {
		return 0, m.told(err)
	}
	return int(s.ConsoleViewers), nil
}

// told makes an *api.Error of what a monitor refused.
func (m *Monitor) told(err error) error {
	if err == nil {
		return nil
	}
	var e *ctl.Error
	if !errors.As(err, &e) {
		return m.process.explain(err)
	}
	return &api.Error{Code: code(e.Code), Detail: fmt.Sprintf("monitor: %s", plain(e.Text)), Err: err}
}

func code(c ctl.Code) api.Code {
	switch c {
	case ctl.BootFileInvalid, ctl.KernelTooLarge:
		return api.CodeBootFileInvalid
	case ctl.InitrdTooLarge:
		return api.CodeInitrdTooLarge
	case ctl.VCPUsInvalid:
		return api.CodeVCPUsInvalid
	case ctl.MemoryInvalid:
		return api.CodeMemoryInvalid
	case ctl.CmdlineTooLong:
		return api.CodeCmdlineTooLong
	case ctl.DiskInvalid:
		return api.CodeDiskInvalid
	case ctl.FormatInvalid:
		return api.CodeDiskFormatInvalid
	case ctl.FormatRefused:
		return api.CodeDiskFormatRefused
	case ctl.BackingInvalid:
		return api.CodeDiskBackingInvalid
	case ctl.NICInvalid:
		return api.CodeNetworkInvalid
	case ctl.SaveInvalid:
		return api.CodeSaveInvalid
	case ctl.SaveFailed:
		return api.CodeSaveFailed
	case ctl.MergeInvalid:
		return api.CodeMergeInvalid
	case ctl.KernelFailed:
		return api.CodeKernelFailed
	case ctl.LimitExceeded:
		return api.CodeLimitExceeded
	default:
		return api.CodeMonitorFailed
	}
}

// plain bounds a text of a monitor, whose guest may have written it, and takes
// out what a terminal or a log could stumble over.
func plain(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '�' {
			return ' '
		}
		return r
	}, s)
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "")
	}
	return s
}
