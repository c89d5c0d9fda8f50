// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"golang.org/x/sys/unix"

	"vmctl/abi"
	"vmctl/monitor/boot"
)

// Guest-physical addresses that Intel's processors need for real mode, in the
// gap below 4 GiB.
const (
	identityMap = 0xfffbc000
	tssAddr     = 0xfffbd000 // three pages
)

// platform is the in-kernel interrupt chips and timer, as they were at power-on.
type platform struct {
	irq [3]abi.KVMIRQChip
	pit abi.KVMPITState2
}

// create makes them.
func (p *platform) create(vm *abi.VM) error {
	if err := vm.SetTSSAddr(tssAddr); err != nil {
		return err
	}
	if err := vm.SetIdentityMap(identityMap); err != nil {
		return err
	}
	if err := vm.CreateIRQChip(); err != nil {
		return err
	}
	const speakerPort = 1 << 0 // port 0x61 is answered in the kernel
	if err := vm.CreatePIT(abi.KVMPITConfig{Flags: speakerPort}); err != nil {
		return err
	}
	return p.get(vm)
}

// get takes down how they are.
func (p *platform) get(vm *abi.VM) (err error) {
	for i := range p.irq {
		if p.irq[i], err = vm.IRQChip(uint32(i)); err != nil {
			return err
		}
	}
	p.pit, err = vm.PIT()
	return err
}

// put makes them what was taken down, and sets the paravirtual clock, in nanoseconds.
func (p *platform) put(vm *abi.VM, clock uint64) error {
	for i := range p.irq {
		if err := vm.SetIRQChip(&p.irq[i]); err != nil {
			return err
		}
	}
	if err := vm.SetPIT(&p.pit); err != nil {
		return err
	}
	return vm.SetClock(&abi.KVMClockData{Clock: clock})
}

// powerOn is the state of a processor before it ever ran.
type powerOn struct {
	sregs  abi.KVMSregs
	lapic  abi.KVMLAPICState
	debug  abi.KVMDebugRegs
	events abi.KVMVCPUEvents
	xcrs   abi.KVMXCRs
	xsave  []byte            // shared by all processors
	msrs   []abi.KVMMSREntry // without the time stamp counter
	mp     uint32
}

const msrTSC = 0x10

// mtrrs are the memory type range registers, which are not in every host's list
// of what to save.
func mtrrs() []uint32 {
	list := []uint32{0x250, 0x258, 0x259, 0x2ff}
	for i := range uint32(16) {
		list = append(list, 0x200+i)
	}
	for i := range uint32(8) {
		list = append(list, 0x268+i)
	}
	return list
}

// takeDown reads the state of all processors, and sets what firmware would have.
func (m *Machine) takeDown() error {
	list, err := m.vm.MSRList()
	if err != nil {
		return err
	}
	list = append(list, mtrrs()...)
	size, err := m.vm.CheckExtension(abi.KVMCapXsave2)
	if err != nil {
		return err
	}
	first := m.cpus[0]
	xsave := make([]byte, max(size, 4096))
	if err := first.fd.Xsave(xsave); err != nil {
		return err
	}
	for _, c := range m.cpus {
		c.fresh.xsave = xsave
		if list, err = c.takeDown(list); err != nil {
			return err
		}
	}
	return nil
}

// takeDown reads the state of one processor and returns which of the MSRs in
// list it has: the next processor has the same.
func (c *cpu) takeDown(list []uint32) ([]uint32, error) {
	f := &c.fresh
	known, err := c.setBootMSRs(list)
	if err != nil {
		return nil, err
	}
	if f.sregs, err = c.fd.Sregs(); err != nil {
		return nil, err
	}
	if f.lapic, err = c.fd.LAPIC(); err != nil {
		return nil, err
	}
	boot.SetLINT(&f.lapic)
	if err := c.fd.SetLAPIC(&f.lapic); err != nil {
		return nil, err
	}
	if f.debug, err = c.fd.DebugRegs(); err != nil {
		return nil, err
	}
	if f.events, err = c.fd.Events(); err != nil {
		return nil, err
	}
	if f.xcrs, err = c.fd.XCRs(); err != nil {
		return nil, err
	}
	f.mp, err = c.fd.MPState()
	return known, err
}

// setBootMSRs sets what firmware would have, and reads all MSRs of list that the
// processor has.
func (c *cpu) setBootMSRs(list []uint32) ([]uint32, error) {
	if err := c.setMSRs(boot.BootMSRs()); err != nil {
		return nil, err
	}
	entries := make([]abi.KVMMSREntry, 0, len(list))
	for _, index := range list {
		if index != msrTSC {
			entries = append(entries, abi.KVMMSREntry{Index: index})
		}
	}
	known := make([]uint32, 0, len(entries))
	for len(entries) > 0 {
		n, err := c.fd.MSRs(entries)
		if err != nil {
			return nil, err
		}
		for _, e := range entries[:n] {
			known = append(known, e.Index)
		}
		c.fresh.msrs = append(c.fresh.msrs, entries[:n]...)
		entries = entries[min(n+1, len(entries)):] // the next is one it does not have
	}
	return known, nil
}

// setMSRs writes entries and leaves out those that the host refuses, such as the
// read-only ones of its list.
func (c *cpu) setMSRs(entries []abi.KVMMSREntry) error {
	for len(entries) > 0 {
		n, err := c.fd.SetMSRs(entries)
		if err != nil {
			return err
		}
		entries = entries[min(n+1, len(entries)):]
	}
	return nil
}

// restore takes the processor back to power-on; c.err says how it went.
func (c *cpu) restore() { c.err = c.toPowerOn() }

func (c *cpu) toPowerOn() error {
	f := &c.fresh
	// What the last exit left half done is finished first, or it would change
	// the new registers. With immediate_exit nothing else happens.
	c.area.ImmediateExit = 1
	err := c.fd.Run()
	c.area.ImmediateExit = 0
	if err != nil && err != unix.EINTR && err != unix.EAGAIN {
		return err
	}
	for _, step := range []func() error{
		func() error { return c.setMSRs(f.msrs) },
		func() error { return c.fd.SetSregs(&f.sregs) },
		func() error { return c.fd.SetRegs(&abi.KVMRegs{Rip: 0xfff0, Rflags: 2}) },
		func() error { return c.fd.SetXCRs(&f.xcrs) },
		func() error { return c.fd.SetXsave(f.xsave) },
		func() error { return c.fd.SetDebugRegs(&f.debug) },
		func() error { return c.fd.SetLAPIC(&f.lapic) },
		func() error { return c.fd.SetEvents(&f.events) },
		func() error { return c.fd.SetMPState(f.mp) },
		func() error { return c.setMSRs([]abi.KVMMSREntry{{Index: msrTSC}}) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// enter puts the processor where the image begins.
func (c *cpu) enter(at boot.Entry) error {
	sregs := c.fresh.sregs
	at.Set(&sregs)
	if err := c.fd.SetSregs(&sregs); err != nil {
		return err
	}
	return c.fd.SetRegs(&at.Regs)
}
