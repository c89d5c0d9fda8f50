// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/abi"
	"vmctl/monitor/console"
	"vmctl/monitor/console/proto"
	"vmctl/monitor/ctl"
	"vmctl/monitor/jail"
	"vmctl/monitor/listen"
	"vmctl/monitor/machine"
	"vmctl/monitor/mem"
	"vmctl/monitor/saved"
	"vmctl/monitor/spec"
)

// version is what Hello answers.
const version = "1"

// Times that bound the life of a monitor beside its VM.
const (
	orphanTimeout = time.Minute     // without a VM and without a control connection
	flushTimeout  = 2 * time.Second // for the last events
	trimDelay     = 3 * time.Second // after what leaves much garbage behind
	trimLast      = 5 * time.Minute // it is looked at again ever later, until then
)

// monitor is the process: one VM at most, its console and its control.
//
//	idle ──Configure──► configured ──Start──► running ──► stopped
//	  └───── Shutdown, or an error of Configure ──────────────┘
type monitor struct {
	name    string
	console *console.Server
	control *control
	done    chan machine.End // has room for one: how all ended
	trim    *time.Timer      // gives the host back what the heap does not use
	trimmed atomic.Int64     // how long ago it was set, when that is done

	mu      sync.Mutex // guards what follows
	state   ctl.State
	machine *machine.Machine
	config  machine.Config
	last    abi.Reason // of the last change, a reset included
}

func newMonitor(name string) *monitor {
	m := &monitor{name: name, state: ctl.Idle, done: make(chan machine.End, 1)}
	m.trim = time.AfterFunc(trimDelay, func() {
		debug.FreeOSMemory()
		if err := mem.ReleaseProgram(); err != nil {
			logLine(name, "trim", err)
		}
		if after := 2 * m.trimmed.Load(); after < int64(trimLast) {
			m.trimmed.Store(after)
			m.trim.Reset(time.Duration(after))
		}
	})
	m.trimSoon()
	return m
}

// trimSoon is called after the machine was set up, after a viewer left, and after the
// last of the guest's sockets was closed: an idle monitor allocates nothing, and would
// keep what they took for good. So it would what the guest's start takes, of which nobody
// knows how long it lasts.
func (m *monitor) trimSoon() {
	m.trimmed.Store(int64(trimDelay))
	m.trim.Reset(trimDelay)
}

// open begins to serve control and console.
func (m *monitor) open(control *listen.Socket, viewers console.Listener, scroll *console.Scroll) {
	m.control = newControl(control, m.handle)
	m.console = console.NewServer(viewers, scroll, console.Events{
		Opened: m.consoleOpened,
		Closed: m.consoleClosed,
		Fault:  func(op string, err error) { logLine(m.name, op, err) },
	})
	m.control.start()
}

// serve waits for the end and returns the exit status.
func (m *monitor) serve() abi.Reason {
	end := m.wait()
	m.mu.Lock()
	m.state, m.last = ctl.Stopped, end.Reason
	m.mu.Unlock()
	m.control.event(ctl.VMStopped{Reason: end.Reason, Data: end.Data, Text: end.Text})
	// The console's clients see the last output before their connection ends.
	if err := m.console.Close(proto.Shutdown, end.Text); err != nil {
		logLine(m.name, "console close", err)
	}
	m.control.close(flushTimeout)
	return end.Reason
}

// wait returns when the machine ended, when it was told to go, or when there is
// nobody left who could tell it anything.
func (m *monitor) wait() machine.End {
	check := time.NewTicker(orphanTimeout)
	defer check.Stop()
	var orphan bool
	for {
		select {
		case end := <-m.done:
			return end
		case <-check.C:
			alone := m.stateNow() == ctl.Idle && !m.control.connected()
			if alone && orphan {
				return machine.End{Text: "nobody gave it a VM"}
			}
			orphan = alone
		}
	}
}

func (m *monitor) stateNow() ctl.State {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state
}

// end makes serve return; the first end is the one that counts.
func (m *monitor) end(e machine.End) {
	select {
	case m.done <- e:
	default:
	}
}

func (m *monitor) consoleOpened(v console.Viewer) {
	mode := ctl.ReadOnly
	if v.Write {
		mode = ctl.ReadWrite
	}
	m.control.event(ctl.ConsoleOpened{Viewer: v.ID, Session: v.Session, User: v.User, Address: v.Address, Mode: mode})
}

func (m *monitor) consoleClosed(v console.Viewer, reason string) {
	m.control.event(ctl.ConsoleClosed{Viewer: v.ID, Session: v.Session, User: v.User, Reason: reason})
	m.trimSoon()
}

// configure makes the machine, from power-on or from what was saved. It owns the
// descriptors from here on; those of the memory stay open.
func (m *monitor) configure(s spec.Spec, from *saved.Files, fds []int) *ctl.Error {
	if from != nil {
		defer from.State.Close()
	}
	files := len(fds)
	if s.CID != 0 {
		files--
	}
	if files < 2 || files > 3 || s.Firmware && files > 2 {
		ctl.CloseAll(fds)
		return &ctl.Error{Code: ctl.DescriptorWrong, Text: "configure takes the VM and a kernel, with which an initrd may come, or a firmware, and a socket if there is a CID"}
	}
	cfg := machine.Config{Spec: s, Saved: from, VM: abi.NewVM(fds[0]), Output: m.console, Reset: m.guestReset, Broken: m.deviceBroken, Detached: m.deviceDetached}
	cfg.Kernel = os.NewFile(uintptr(fds[1]), "kernel")
	if s.CID != 0 {
		var err error
		if cfg.Vsock, err = listen.Open(fds[files], "vsock"); err != nil {
			return refusal(err)
		}
		cfg.Dial, cfg.Idle = m.vsockDial, m.trimSoon
	}
	if files == 3 {
		cfg.Initrd = os.NewFile(uintptr(fds[2]), "initrd")
	}
	for _, f := range []*os.File{cfg.Kernel, cfg.Initrd} {
		if f != nil && !regular(f) {
			return &ctl.Error{Code: ctl.BootFileInvalid, Text: f.Name() + " is not a regular file"}
		}
	}
	made, err := machine.New(cfg)
	if err != nil {
		return refusal(err)
	}
	// Rings and all else that is made once is there; the guest has not run yet.
	if err := jail.Seal(); err != nil {
		return refusal(err)
	}
	m.machine, m.config, m.state = made, cfg, ctl.Configured
	m.console.SetInput(made.Receive)
	m.console.SetResize(made.Resize)
	return nil
}

func regular(f *os.File) bool {
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG
}

// start lets the guest run, on a goroutine that ends the process when it ends.
func (m *monitor) start() {
	m.state = ctl.Running
	run := m.machine.Run
	go func() { m.end(run()) }()
	m.trimSoon()
}

// guestReset is called by the machine's goroutine.
func (m *monitor) guestReset(count uint32) {
	m.mu.Lock()
	m.last = abi.ReasonReset
	m.mu.Unlock()
	m.trimSoon()
	m.control.event(ctl.GuestReset{Count: count})
}

// deviceBroken is called from anywhere.
func (m *monitor) deviceBroken(device string, err error) {
	m.control.event(ctl.DeviceBroken{Device: device, Text: err.Error()})
}

// deviceDetached is called from anywhere.
func (m *monitor) deviceDetached(nic bool, number uint8) {
	m.control.event(ctl.Detached{IsNIC: nic, Number: number})
}

// vsockDial is called by the device, and must not wait.
func (m *monitor) vsockDial(number, port uint32) bool {
	return m.control.offer(ctl.VsockDial{Number: number, Port: port})
}

func (m *monitor) status() ctl.StatusReply {
	r := ctl.StatusReply{State: m.state, Reason: m.last, ConsoleViewers: uint32(m.console.Viewers())}
	if m.machine != nil {
		r.VCPUs, r.MemoryBytes = m.config.Spec.VCPUs, m.config.Spec.MemoryBytes
		r.Resets = m.machine.Resets()
	}
	return r
}
