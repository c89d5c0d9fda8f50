// SPDX-License-Identifier: Apache-2.0

// Package launchtest is a stub of the monitor vmx for tests on a host without
// the module: a real process with the real control and console protocols, on
// the fake kernel of kerntest. A test binary is its own stub:
//
//	func TestMain(m *testing.M) {
//		if launchtest.IsStub() {
//			launchtest.Main()
//		}
//		os.Exit(m.Run())
//	}
//
// The text of the kernel file says how the guest behaves; see behaviour.
package launchtest

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/abi"
	"vmctl/monitor/ctl"
	"vmctl/monitor/spec"
)

// What a kernel file can say.
const (
	Runs      = "runs\n"      // until it is stopped
	Corrupt   = "corrupt\n"   // refused by Configure; the monitor exits
	Hangs     = "hangs\n"     // Start succeeds, and no guest ever runs
	Slow      = "slow\n"      // Configure never answers
	PowersOff = "powersoff\n" // runs, then powers off
	Panics    = "panics\n"    // runs, then reports a panic
	Resets    = "resets\n"    // runs, and resets itself once
	Crashes   = "crashes\n"   // the monitor dies as soon as the guest runs
	Stubborn  = "stubborn\n"  // runs, and does not end when it is told to
	Falters   = "falters\n"   // runs for a moment, then reports a panic
	Tires     = "tires\n"     // runs for a moment, then powers off
	BIOS      = "bios\n"      // runs, and is a firmware and no kernel
	Breaks    = "breaks\n"    // runs, and breaks its first disk
	Unsaved   = "unsaved\n"   // runs, and cannot be saved
	Unlimited = "unlimited\n" // runs, and refuses to limit its disks
	Lingers   = "lingers\n"   // runs, and is at a save, without a word, until the gate is opened
	Forgets   = "forgets\n"   // runs, and has no balloon any more when another daemon connects
	Calls     = "calls\n"     // runs, and connects to CallsPort of the host's again and again

	// They run, and of the daemons that connect the first finds that the monitor does
	// not answer, or does not get on.
	Holds      = "holds\n"      // asked to switch a disk it has not, and does not answer
	Switches   = "switches\n"   // likewise, and has
	Stalls     = "stalls\n"     // does not get on with a merge
	Unfinished = "unfinished\n" // does not answer who wants a merge finished
	Unswitched = "unswitched\n" // cannot switch a disk, for any daemon
	Unmerged   = "unmerged\n"   // cannot merge one, for any daemon
	Ignores    = "ignores\n"    // asked to attach a device it has not, and does not answer
	Takes      = "takes\n"      // likewise, and has
	Drops      = "drops\n"      // lets go of a device, and tells nobody
	Keeps      = "keeps\n"      // does not let go of one
	Clings     = "clings\n"     // does not before it is reset, for any daemon
	Bound      = "bound\n"      // refuses to detach one, for any daemon
	Full       = "full\n"       // refuses to attach one, for any daemon
)

// IsStub reports whether this process was started as a monitor.
func IsStub() bool { return len(os.Args) > 0 && os.Args[0] == "vmx" }

// Main is the monitor. It does not return.
func Main() {
	signal.Ignore(unix.SIGPIPE) // the log's reader may go
	s := &stub{state: ctl.Idle, consoles: newConsoles(), exit: make(chan int)}
	go s.accept(3)
	go s.leaveAlone()
	go s.consoles.accept(4, s.tell)
	os.Exit(<-s.exit)
}

type stub struct {
	exit     chan int
	consoles *consoles

	mu        sync.Mutex
	conn      *ctl.Conn // [mu] the newest; older ones are closed
	state     ctl.State // [mu]
	behaviour string    // [mu]
	vm        runVM     // [mu]
	resets    uint32    // [mu]
	disks     []*disk   // [mu] by number; nil: none
	nics      []*nic    // [mu] likewise
	balloon   uint64    // [mu] its target, which the guest has reached
	daemons   int       // [mu] that connected so far
}

// leaveAlone ends a monitor that has no VM and no daemon, as vmx does: one that a
// daemon had begun to spawn when it was killed is found by nobody. vmx waits for a
// minute.
func (s *stub) leaveAlone() {
	const patience = 10 * time.Second
	for last := time.Now(); ; time.Sleep(patience / 20) {
		s.mu.Lock()
		if s.conn != nil || s.state != ctl.Idle {
			last = time.Now()
		}
		s.mu.Unlock()
		if time.Since(last) > patience {
			s.exit <- int(abi.ReasonNone)
		}
	}
}

// accept takes control connections; the newest supersedes.
func (s *stub) accept(listener int) {
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		if err == unix.EINTR || err == unix.ECONNABORTED {
			continue
		}
		if err != nil {
			s.die("accept", err)
		}
		c, err := ctl.NewConn(fd)
		if err != nil {
			s.die("control connection", err)
		}
		s.mu.Lock()
		if s.conn != nil {
			s.conn.Close()
		}
		s.conn = c
		s.daemons++
		if s.behaviour == Forgets {
			s.balloon = 0
		}
		s.mu.Unlock()
		go s.serve(c)
	}
}

func (s *stub) die(op string, err error) {
	fmt.Fprintln(os.Stderr, "stub:", op, err)
	s.exit <- int(abi.ReasonInternalError)
}

func (s *stub) serve(c *ctl.Conn) {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.conn == c {
			s.conn = nil
		}
	}()
	for {
		p, fds, err := c.Recv()
		if err != nil {
			if err != io.EOF {
				fmt.Fprintln(os.Stderr, "stub: recv", err)
			}
			return
		}
		s.answer(c, p, fds)
	}
}

func (s *stub) answer(c *ctl.Conn, p ctl.Packet, fds []int) {
	reply, e := s.do(p.Body, fds)
	out := ctl.Packet{ID: p.ID, Body: reply}
	if e != nil {
		out = ctl.Refusal(&p, e)
	} else if reply == nil {
		out.Body = ctl.DoneWith(p.Body)
	}
	c.Send(out) // who hung up does not hear it
	switch p.Body.(type) {
	case *ctl.Configure, *ctl.Restore:
		if e != nil {
			s.exit <- int(abi.ReasonInternalError)
		}
	case *ctl.Start:
		go s.guest()
	case *ctl.PowerButton:
		go s.end(abi.ReasonPoweroff)
	case *ctl.Shutdown:
		s.mu.Lock()
		stubborn := s.behaviour == Stubborn
		s.mu.Unlock()
		if !stubborn {
			s.exit <- int(abi.ReasonNone)
		}
	}
}

// do is every request but what follows its reply.
func (s *stub) do(m ctl.Message, fds []int) (ctl.Message, *ctl.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch r := m.(type) {
	case *ctl.Hello:
		return &ctl.HelloReply{Protocol: ctl.Version, Version: "stub", State: s.state}, nil
	case *ctl.Status:
		return &ctl.StatusReply{State: s.state, Resets: s.resets, ConsoleViewers: s.consoles.count()}, nil
	case *ctl.Configure:
		return nil, s.configure(r.Spec, fds)
	case *ctl.Restore:
		return nil, s.restore(r.Spec, fds)
	case *ctl.Save:
		return nil, s.save(fds)
	case *ctl.DiskSwitch:
		return nil, s.switchDisk(r)
	case *ctl.DiskMerge:
		return s.mergeDisk(r)
	case *ctl.Start:
		s.state = ctl.Running
	case *ctl.Reset:
		s.resets++
		if err := s.vm.Report(abi.ReasonReset, [4]uint64{}); err != nil {
			return nil, &ctl.Error{Code: ctl.KernelFailed, Text: err.Error()}
		}
		events := append(s.letGo(), &ctl.GuestReset{Count: s.resets})
		go func() {
			for _, e := range events {
				s.tell(e)
			}
		}()
	case *ctl.SetDisk:
		if s.state != ctl.Running || s.behaviour == Unlimited {
			return nil, &ctl.Error{Code: ctl.DiskInvalid, Text: "no such disk"}
		}
		if _, e := s.disk(r.Disk); e != nil {
			return nil, e
		}
		fmt.Fprintf(os.Stderr, "stub: disk %d has %+v\n", r.Disk, r.Limit)
	case *ctl.AttachDisk:
		return s.attachDisk(r)
	case *ctl.AttachNIC:
		return s.attachNIC(r)
	case *ctl.Detach:
		return nil, s.detach(r)
	case *ctl.SetNIC:
		if e := s.setNIC(r); e != nil {
			return nil, e
		}
		fmt.Fprintf(os.Stderr, "stub: nic %d has %+v\n", r.NIC, *r)
	case *ctl.Balloon:
		if r.Target != ctl.KeepTarget {
			s.balloon = r.Target
		}
		return &ctl.BalloonReply{Target: s.balloon, Actual: s.balloon, Memory: ctl.GuestMemory{Total: 1 << 26, Free: 1<<26 - s.balloon, MajorFaults: 1 << 63}}, nil
	case *ctl.ConsoleGrant:
		s.consoles.grant(*r)
	case *ctl.ConsoleClose:
		s.consoles.close(r.Session)
	case *ctl.VsockDialed:
		s.dialed(fds)
	}
	return nil, nil
}

func (s *stub) configure(m spec.Spec, fds []int) *ctl.Error {
	if s.state != ctl.Idle || len(fds) < 2 {
		ctl.CloseAll(fds)
		return &ctl.Error{Code: ctl.StateConflict, Text: "not idle, or descriptors are missing"}
	}
	kernel := os.NewFile(uintptr(fds[1]), "kernel")
	if m.CID != 0 {
		go acceptVsock(fds[len(fds)-1])
		fds = fds[:len(fds)-1]
	}
	ctl.CloseAll(fds[2:])
	text, err := io.ReadAll(kernel)
	kernel.Close()
	if err != nil {
		return &ctl.Error{Code: ctl.Internal, Text: err.Error()}
	}
	s.behaviour = string(text)
	if strings.HasPrefix(s.behaviour, Corrupt) {
		return &ctl.Error{Code: ctl.BootFileInvalid, Text: "kernel has no boot signature"}
	}
	if m.Firmware != (s.behaviour == BIOS) {
		return &ctl.Error{Code: ctl.BootFileInvalid, Text: "kernel and firmware are confused"}
	}
	if s.behaviour == Slow {
		s.hang()
	}
	if s.vm, err = openVM(fds[0]); err == nil {
		err = s.vm.Bind()
	}
	if err != nil {
		return &ctl.Error{Code: ctl.KernelFailed, Text: err.Error()}
	}
	for _, d := range m.Disks {
		if d.None() {
			s.disks = append(s.disks, nil)
			continue
		}
		made, ok := s.openDisk(d)
		if !ok {
			return &ctl.Error{Code: ctl.DiskInvalid, Text: "no such disk is attached to the VM"}
		}
		s.disks = append(s.disks, made)
		var magic [4]byte
		if d.Format == spec.QCOW2 {
			if _, err := unix.Pread(made.files[d.Backend][0].FD, magic[:], 0); err != nil || string(magic[:]) != "QFI\xfb" {
				return &ctl.Error{Code: ctl.FormatInvalid, Text: "file is no qcow2 image"}
			}
		}
	}
	s.addNICs(m.NICs)
	s.state = ctl.Configured
	return nil
}

// saved is what the stub writes down of itself.
const saved = "a stub was saved here"

func (s *stub) save(fds []int) *ctl.Error {
	defer ctl.CloseAll(fds)
	if s.behaviour == Unsaved || len(fds) != 2 {
		return &ctl.Error{Code: ctl.SaveFailed, Text: "no space left on device"}
	}
	for s.behaviour == Lingers {
		if info, err := s.vm.Info(); err != nil || info.Paused == 0 {
			return &ctl.Error{Code: ctl.StateConflict, Text: "machine is saved only while its VM is paused"}
		}
		time.Sleep(time.Millisecond)
	}
	for _, fd := range fds {
		if _, err := unix.Pwrite(fd, []byte(saved), 0); err != nil {
			return &ctl.Error{Code: ctl.SaveFailed, Text: err.Error()}
		}
	}
	return nil
}

func (s *stub) restore(m spec.Spec, fds []int) *ctl.Error {
	text := make([]byte, len(saved))
	if len(fds) < 4 {
		ctl.CloseAll(fds)
		return &ctl.Error{Code: ctl.DescriptorWrong, Text: "too few descriptors"}
	}
	for _, fd := range fds[1:3] {
		if _, err := unix.Pread(fd, text, 0); err != nil || string(text) != saved {
			ctl.CloseAll(fds)
			return &ctl.Error{Code: ctl.SaveInvalid, Text: "saved machine was changed after it was written"}
		}
	}
	ctl.CloseAll(fds[1:3])
	return s.configure(m, slices.Delete(fds, 1, 3))
}

// tell sends an event to whoever is connected.
func (s *stub) tell(m ctl.Message) {
	s.mu.Lock()
	c := s.conn
	s.mu.Unlock()
	if c != nil {
		c.Send(ctl.Packet{Body: m}) // who hung up does not hear it
	}
}
