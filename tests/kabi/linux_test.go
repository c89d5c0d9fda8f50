// SPDX-License-Identifier: Apache-2.0

//go:build lab

package kabi

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/abi"
	"vmctl/monitor/acpi"
	"vmctl/monitor/boot"
	"vmctl/monitor/bus"
	"vmctl/monitor/legacy"
	"vmctl/monitor/mem"
)

// linux is a guest that runs the machine's own kernel, in whichever VM its state
// was put last. Its devices are the serial port and the clock, which stay.
type linux struct {
	t      *testing.T
	cpuids boot.CPUs
	image  boot.Image
	ports  bus.Space
	mmio   bus.Space
	uart   *legacy.UART

	mu   sync.Mutex
	said sync.Cond // on mu
	out  []byte
	seen int // how much of out expect has passed
	runs int
	late bool // nobody waits any more
	vm   *abi.VM
}

// linuxVM is one VM that the guest lives in for a while.
type linuxVM struct {
	*linux
	dev    *abi.Device
	vm     *abi.VM
	memory *mem.Memory
	cpus   []*abi.VCPU
	work   sync.WaitGroup
}

func newLinux(t *testing.T, cpus uint32) *linux {
	t.Helper()
	g := &linux{t: t, cpuids: boot.CPUs{Count: cpus, Deadline: true}}
	g.said.L = &g.mu
	open := func(path string) (*os.File, int64) {
		f, err := os.Open(path)
		ok(t, err)
		t.Cleanup(func() { closeAll(t, f) })
		info, err := f.Stat()
		ok(t, err)
		return f, info.Size()
	}
	kernel, size := open(exampleKernel)
	var err error
	g.image.Kernel, err = boot.ParseKernel(kernel, size)
	ok(t, err)
	g.image.Initrd, g.image.InitrdSize = open(exampleInitrd)
	g.image.Cmdline = "console=ttyS0 quiet panic=-1"
	g.image.Tables, err = acpi.New(acpi.Reduced, cpus, acpi.Base)
	ok(t, err)
	g.uart = legacy.NewUART(g.print, g.line, func() {})
	ok(t, g.ports.AddRegisters(legacy.COM1, legacy.UARTRegisters, g.uart))
	ok(t, g.ports.AddRegisters(legacy.RTCBase, legacy.RTCRegisters, legacy.NewRTC(time.Now)))
	return g
}

func (g *linux) print(b byte) {
	g.mu.Lock()
	g.out = append(g.out, b)
	g.mu.Unlock()
	g.said.Broadcast()
}

// line drives the serial port's interrupt in the VM of the moment. It fails when
// that one is stopped.
func (g *linux) line(up bool) {
	g.mu.Lock()
	vm := g.vm
	g.mu.Unlock()
	var level uint32
	if up {
		level = 1
	}
	_ = vm.SignalLine(legacy.COM1Line, level)
}

// expect waits for a text behind the one that was expected before, and returns
// what stands between.
func (g *linux) expect(text string) string {
	g.t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.late = false
	patience := time.AfterFunc(3*time.Minute, func() {
		g.mu.Lock()
		g.late = true
		g.mu.Unlock()
		g.said.Broadcast()
	})
	defer patience.Stop()
	for {
		if before, _, found := bytes.Cut(g.out[g.seen:], []byte(text)); found {
			g.seen += len(before) + len(text)
			return string(before)
		}
		if g.late {
			g.t.Fatalf("no %q; the console shows:\n%s", text, g.out)
		}
		g.said.Wait()
	}
}

// run types a command and returns what it prints. The shell echoes what is typed,
// broken where the line is full, so the output stands between two marks that the
// guest computes.
func (g *linux) run(command string) string {
	g.t.Helper()
	g.runs++
	line := fmt.Appendf(nil, "echo [$((%d+1)); %s; echo ]$((%d+1))\n", g.runs-1, command, g.runs-1)
	if n := g.uart.Receive(line); n != len(line) {
		g.t.Fatalf("the serial port took %d bytes of %d", n, len(line))
	}
	g.expect(fmt.Sprintf("\n[%d\r\n", g.runs))
	out := g.expect(fmt.Sprintf("]%d\r\n", g.runs))
	g.expect(examplePrompt)
	return strings.TrimSpace(strings.ReplaceAll(out, "\r", ""))
}

// newVM makes a VM with the guest's platform, processors and memory, all as at
// power-on.
func (g *linux) newVM() *linuxVM {
	t := g.t
	t.Helper()
	v := &linuxVM{linux: g, dev: openDevice(t)}
	var err error
	v.vm, _, err = v.dev.Create(newUUID(), fmt.Sprintf("kabi-linux-%d", serial.Load()))
	ok(t, err)
	m := &machine{t: t, vm: v.vm}
	ok(t, v.vm.Bind())
	m.platform()
	supported, err := v.vm.SupportedCPUID()
	ok(t, err)
	for i := range g.cpuids.Count {
		c, err := v.vm.CreateVCPU(i)
		ok(t, err)
		ok(t, c.MapRun())
		ok(t, c.SetCPUID(g.cpuids.CPUID(supported, i)))
		v.cpus = append(v.cpus, c)
	}
	v.memory, err = mem.New(256 << 20)
	ok(t, err)
	for slot, r := range v.memory.Regions() {
		ok(t, v.vm.MapMemory(abi.KVMUserspaceMemoryRegion{
			Slot: uint32(slot), GuestPhysAddr: r.Base, MemorySize: r.Len(), UserspaceAddr: r.HostAddr(),
		}))
	}
	g.mu.Lock()
	g.vm = v.vm
	g.mu.Unlock()
	return v
}

// powerOn does what firmware would.
func (v *linuxVM) powerOn() {
	t := v.t
	t.Helper()
	entry, err := v.image.Load(v.memory)
	ok(t, err)
	for _, c := range v.cpus {
		_, err := c.SetMSRs(boot.BootMSRs())
		ok(t, err)
		lapic, err := c.LAPIC()
		ok(t, err)
		boot.SetLINT(&lapic)
		ok(t, c.SetLAPIC(&lapic))
	}
	sregs, err := v.cpus[0].Sregs()
	ok(t, err)
	entry.Set(&sregs)
	ok(t, v.cpus[0].SetSregs(&sregs))
	ok(t, v.cpus[0].SetRegs(&entry.Regs))
}

// start runs the processors, each on a thread of its own, until the VM is stopped.
func (v *linuxVM) start() {
	for i, c := range v.cpus {
		v.work.Go(func() {
			runtime.LockOSThread()
			for {
				switch err := c.Run(); err {
				case nil:
					v.exit(c)
				case unix.EINTR, unix.EAGAIN:
				case unix.ESHUTDOWN:
					return
				default:
					v.t.Errorf("vCPU %d: %v", i, err)
					return
				}
			}
		})
	}
}

func (v *linuxVM) exit(c *abi.VCPU) {
	switch area := c.RunArea(); area.ExitReason {
	case abi.KVMExitIO:
		io, data := area.IO(), c.IOData()
		for size := int(io.Size); len(data) >= size; data = data[size:] {
			if io.Direction == abi.KVMExitIOIn {
				v.ports.Read(uint64(io.Port), data[:size])
			} else {
				v.ports.Write(uint64(io.Port), data[:size])
			}
		}
	case abi.KVMExitMMIO:
		io := area.MMIO()
		if data := io.Data[:io.Len]; io.IsWrite != 0 {
			v.mmio.Write(io.PhysAddr, data)
		} else {
			v.mmio.Read(io.PhysAddr, data)
		}
	case abi.KVMExitHLT, abi.KVMExitIntr:
	default:
		v.t.Errorf("exit reason %d", area.ExitReason)
		ok(v.t, v.vm.Stop())
	}
}

// end stops the VM and gives back all it had.
func (v *linuxVM) end() {
	v.t.Helper()
	// A signal ends the wait for a vCPU, and undoes nothing.
	if err := v.vm.Stop(); !errors.Is(err, unix.EINTR) {
		ok(v.t, err)
	}
	v.work.Wait()
	for _, c := range v.cpus {
		closeAll(v.t, c)
	}
	closeAll(v.t, v.vm, v.memory)
}

// linuxState is all that a VM has beside its memory.
type linuxState struct {
	cpus  []cpuState
	chips [3]abi.KVMIRQChip
	pit   abi.KVMPITState2
	clock abi.KVMClockData
}

type cpuState struct {
	mp       uint32
	cpuid    []abi.KVMCPUIDEntry2
	tscKHz   uint64
	regs     abi.KVMRegs
	sregs    abi.KVMSregs
	xcrs     abi.KVMXCRs
	xsave    []byte
	debug    abi.KVMDebugRegs
	lapic    abi.KVMLAPICState
	msrs     []abi.KVMMSREntry
	deadline abi.KVMMSREntry
	events   abi.KVMVCPUEvents
}

const msrTSCDeadline = 0x6e0

// save reads the state of a paused VM. KVM's rules: the processors' activity
// first, as asking for it takes up pending INIT and SIPI; events last.
func (v *linuxVM) save() *linuxState {
	t := v.t
	t.Helper()
	s := &linuxState{cpus: make([]cpuState, len(v.cpus))}
	list, err := v.vm.MSRList()
	ok(t, err)
	size, err := v.vm.CheckExtension(abi.KVMCapXsave2)
	ok(t, err)
	for i, c := range v.cpus {
		s.cpus[i].save(t, c, list, max(size, 4096))
	}
	for i := range s.chips {
		s.chips[i], err = v.vm.IRQChip(uint32(i))
		ok(t, err)
	}
	s.pit, err = v.vm.PIT()
	ok(t, err)
	s.clock, err = v.vm.Clock()
	ok(t, err)
	return s
}

func (s *cpuState) save(t *testing.T, c *abi.VCPU, list []uint32, xsave int) {
	t.Helper()
	var err error
	s.mp, err = c.MPState()
	ok(t, err)
	s.cpuid, err = c.CPUID()
	ok(t, err)
	s.tscKHz, err = c.TSCKHz()
	ok(t, err)
	s.regs, err = c.Regs()
	ok(t, err)
	s.sregs, err = c.Sregs()
	ok(t, err)
	s.xcrs, err = c.XCRs()
	ok(t, err)
	s.xsave = make([]byte, xsave)
	ok(t, c.Xsave(s.xsave))
	s.debug, err = c.DebugRegs()
	ok(t, err)
	s.lapic, err = c.LAPIC()
	ok(t, err)
	for _, index := range list {
		one := []abi.KVMMSREntry{{Index: index}}
		switch n, err := c.MSRs(one); {
		case err != nil:
			t.Fatal(err)
		case n == 0: // the host lists it, the guest's processor does not have it
		case index == msrTSCDeadline:
			s.deadline = one[0]
		default:
			s.msrs = append(s.msrs, one[0])
		}
	}
	s.events, err = c.Events()
	ok(t, err)
}

// restore puts a state into a VM that was never run, in the order that the parts
// need: CPUID decides what others may hold, the local APIC takes its base from
// the special registers, and its timer needs the time stamp counter.
func (v *linuxVM) restore(s *linuxState) {
	t := v.t
	t.Helper()
	for i, c := range v.cpus {
		s.cpus[i].restore(t, c)
	}
	for i := range s.chips {
		ok(t, v.vm.SetIRQChip(&s.chips[i]))
	}
	ok(t, v.vm.SetPIT(&s.pit))
	ok(t, v.vm.SetClock(&abi.KVMClockData{Clock: s.clock.Clock}))
}

func (s *cpuState) restore(t *testing.T, c *abi.VCPU) {
	t.Helper()
	ok(t, c.SetCPUID(s.cpuid))
	ok(t, c.SetTSCKHz(s.tscKHz))
	ok(t, c.SetMPState(s.mp))
	ok(t, c.SetRegs(&s.regs))
	ok(t, c.SetSregs(&s.sregs))
	ok(t, c.SetXCRs(&s.xcrs))
	ok(t, c.SetXsave(s.xsave))
	ok(t, c.SetDebugRegs(&s.debug))
	ok(t, c.SetLAPIC(&s.lapic))
	for rest := s.msrs; len(rest) > 0; {
		n, err := c.SetMSRs(rest)
		ok(t, err)
		if n < len(rest) {
			s.wantUnchanged(t, c, rest[n])
			n++
		}
		rest = rest[n:]
	}
	if s.deadline.Data != 0 {
		n, err := c.SetMSRs([]abi.KVMMSREntry{s.deadline})
		ok(t, err)
		if n != 1 {
			t.Error("the timer's deadline was refused")
		}
	}
	ok(t, c.SetEvents(&s.events))
	if err := c.KVMClockCtrl(); err != nil && err != unix.EINVAL { // EINVAL: it has not looked at the clock yet
		t.Error(err)
	}
}

// wantUnchanged is for MSRs that can be read alone: the new processor must have
// the same value by itself.
func (s *cpuState) wantUnchanged(t *testing.T, c *abi.VCPU, want abi.KVMMSREntry) {
	t.Helper()
	one := []abi.KVMMSREntry{{Index: want.Index}}
	n, err := c.MSRs(one)
	ok(t, err)
	if n != 1 || one[0].Data != want.Data {
		t.Errorf("MSR %#x cannot be set to %#x, and is %#x", want.Index, want.Data, one[0].Data)
	}
}

// TestSaveAndRestoreLinux moves a running guest with two busy processors from VM
// to VM by the register classes and a copy of its memory.
func TestSaveAndRestoreLinux(t *testing.T) {
	g := newLinux(t, 2)
	v := g.newVM()
	defer func() { v.end() }()
	v.powerOn()
	v.start()
	g.expect(examplePrompt)
	if got := g.run("nproc"); got != "2" {
		t.Fatalf("nproc: %q", got)
	}
	g.run("for c in 0 1; do (while :; do echo >> /tmp/$c; done) & done")
	before := g.run("cut -d. -f1 /proc/uptime")
	for round := range 3 {
		(&machine{t: t, vm: v.vm}).mustPause(abi.PauseSnapshot)
		state := v.save()
		next := g.newVM()
		for _, r := range v.memory.Regions() {
			to, err := next.memory.At(r.Base, r.Len())
			ok(t, err)
			from, err := v.memory.At(r.Base, r.Len())
			ok(t, err)
			copy(to, from)
		}
		old := v
		v = next
		old.end()
		v.restore(state)
		v.start()
		if got := g.run("echo moved-$((6*7))"); got != "moved-42" {
			t.Fatalf("round %d: %q", round, got)
		}
		// Both processors go on: the programs on them, their timers, and the
		// interrupts between them.
		for c := range 2 {
			g.run(fmt.Sprintf("n=$(wc -c < /tmp/%d); while [ $(wc -c < /tmp/%d) -eq $n ]; do sleep 0.1; done", c, c))
		}
	}
	if log := g.run("dmesg | grep -cE 'lockup|stall|BUG|Oops|Call Trace'"); log != "0" {
		t.Errorf("the guest complains:\n%s", g.run("dmesg | tail -40"))
	}
	if after := g.run("cut -d. -f1 /proc/uptime"); len(after) < len(before) || after < before && len(after) == len(before) {
		t.Errorf("uptime went from %s to %s s", before, after)
	}
}
