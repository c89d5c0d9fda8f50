// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"errors"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/abi"
	"vmctl/monitor/boot"
	"vmctl/monitor/legacy"
	"vmctl/monitor/pci"
	"vmctl/monitor/saved"
	"vmctl/monitor/spec"
	"vmctl/monitor/wire"
)

// ErrNotPaused is a machine to save whose gate is not shut: its guest would go on
// meanwhile.
var ErrNotPaused = errors.New("machine is saved only while its VM is paused")

// ErrBusy is a machine to save that is being reset, or ends: what would be written is
// half of one thing and half of the other.
var ErrBusy = errors.New("machine is being reset, or ends")

// A guest's MSRs that want to be restored apart: the counter goes on with the time that
// passed, and the timer's deadline is one of the counter.
const msrTSCDeadline = 0x6e0

// Save writes the machine to two empty files, and lets its devices go on. Its VM is
// paused, with no exit unsettled, and stays so: the processors' threads wait at the
// gate. errors.Is: ErrNotPaused, ErrBusy, the errors of package saved, those of the files.
func (m *Machine) Save(f saved.Files) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.quiet.Swap(true) {
		return ErrNotPaused
	}
	err := ErrBusy
	if m.turn.TryLock() {
		defer m.turn.Unlock()
		err = m.shut()
	}
	if err != nil {
		m.quiet.Store(false)
		m.output.Room()
		return err
	}
	defer m.goOn()
	for _, d := range m.devices {
		d.Pause()
	}
	return f.Write(m.memory, m.write, m.shut)
}

// goOn lets the devices work that the guest had started.
func (m *Machine) goOn() {
	for _, d := range m.devices { // nobody else is there
		d.Resume()
	}
	if m.vsock != nil {
		m.vsock.TransportReset() // the host's ends of its connections are gone
	}
	m.quiet.Store(false)
	m.output.Room() // Receive took nothing meanwhile
}

// shut sees that the guest stands still, and that nothing waits to be done to it.
func (m *Machine) shut() error {
	if m.cause.Load() != nil {
		return ErrBusy
	}
	info, err := m.vm.Info()
	if err == nil && (info.State != abi.VMStateRunning || info.Paused == 0) {
		err = ErrNotPaused
	}
	return err
}

// keeper is a part of the machine with a state of its own.
type keeper interface {
	Save(*wire.Writer)
	Load(*wire.Reader)
}

// part is one of them and its section.
type part struct {
	name string
	keeper
}

// parts are those that are not on the bus, and the bus, in the order of their sections;
// the devices on the bus come behind it.
func (m *Machine) parts() []part {
	list := []part{{"serial", m.uart}, {"rtc", m.rtc}, {"debug", &m.debug}, {"reset", &m.resetIO}, {"pm", m.pm}, {"slots", &m.slots}}
	if m.fwcfg != nil {
		list = append(list, part{"fwcfg", m.fwcfg})
	}
	return append(list, part{"pci", m.pci})
}

func deviceName(i int) string { return "device" + strconv.Itoa(i) }

// write writes all sections.
func (m *Machine) write(w *saved.Writer) error {
	cpuids, err := m.cpuids()
	if err != nil {
		return err
	}
	w.Section("machine", func(w *wire.Writer) {
		w.Blob(m.shape())
		w.U32(m.resets.Load())
		for _, d := range m.inOrder() {
			w.U8(uint8(d.slot))
			w.Bool(d.leaving)
		}
	})
	w.Section("cpuid", func(w *wire.Writer) { w.Blob(cpuids) })
	for _, c := range m.cpus {
		w.Section("cpu"+strconv.Itoa(int(c.index)), func(w *wire.Writer) { err = errors.Join(err, c.save(w)) })
	}
	w.Section("chips", func(w *wire.Writer) { err = errors.Join(err, saveChips(m.vm, w)) })
	for _, p := range m.parts() {
		w.Section(p.name, p.Save)
	}
	for i, d := range m.inOrder() {
		w.Section(deviceName(i), func(w *wire.Writer) { err = errors.Join(err, d.Save(w)) })
	}
	return err
}

// shape is what the machine is made of, and must be again.
func (m *Machine) shape() []byte {
	s := spec.Spec{VCPUs: m.spec.VCPUs, MemoryBytes: m.spec.MemoryBytes, Firmware: m.spec.Firmware, Console: m.spec.Console, CID: m.spec.CID}
	// Not what a disk is made of, which may have changed and be described in another way:
	// who restores says what it is. Backends are but there, or not.
	for i, d := range m.spec.Disks {
		if !d.None() {
			s.Disks = append(s.Disks, make([]spec.Disk, i-len(s.Disks))...)
			s.Disks = append(s.Disks, spec.Disk{Backend: 1, ReadOnly: d.ReadOnly, ID: d.ID})
		}
	}
	for i, n := range m.spec.NICs {
		if !n.None() {
			s.NICs = append(s.NICs, make([]spec.NIC, i-len(s.NICs))...)
			s.NICs = append(s.NICs, spec.NIC{Backend: 1, MAC: n.MAC})
		}
	}
	return s.Encode(nil)
}

// readPlaces reads where the devices of the spec were.
func (m *Machine) readPlaces(r *wire.Reader) {
	kinds := []bool{false} // of each device, whether it can leave
	if m.spec.Console == spec.Virtio {
		kinds = append(kinds, false)
	}
	for _, d := range m.spec.Disks {
		if !d.None() {
			kinds = append(kinds, true)
		}
	}
	for _, n := range m.spec.NICs {
		if !n.None() {
			kinds = append(kinds, true)
		}
	}
	kinds = append(kinds, false)
	if m.vsock != nil {
		kinds = append(kinds, false)
	}
	for _, leaves := range kinds {
		p := place{slot: r.U8(), leaving: r.Bool()}
		if p.leaving && !leaves || p.slot == 0 || p.slot >= pci.Slots || slices.ContainsFunc(m.places, func(o place) bool { return o.slot == p.slot }) {
			r.Fail(saved.ErrForeign)
		}
		m.places = append(m.places, p)
	}
}

// cpuids is what all processors say of themselves on this host.
func (m *Machine) cpuids() (list []byte, err error) {
	id, supported, err := m.processors()
	if err != nil {
		return nil, err
	}
	for i := range id.Count {
		list = append(list, abi.RawList(id.CPUID(supported, i))...)
	}
	return list, nil
}

// processors is what the processors are made of.
func (m *Machine) processors() (boot.CPUs, []abi.KVMCPUIDEntry2, error) {
	supported, err := m.vm.SupportedCPUID()
	if err != nil {
		return boot.CPUs{}, nil, err
	}
	deadline, err := m.vm.CheckExtension(abi.KVMCapTSCDeadlineTimer)
	return boot.CPUs{Count: m.spec.VCPUs, Deadline: deadline > 0}, supported, err
}

// openSaved looks whether files have this machine, before anything of it is there.
// errors.Is: the errors of package saved.
func (m *Machine) openSaved(f *saved.Files) (err error) {
	if m.saved, err = f.Read(m.memory.Size()); err != nil {
		return err
	}
	m.ramFile = f.Memory
	m.quiet.Store(true)
	m.saved.Section("machine", func(r *wire.Reader) {
		saved.Same(r, m.shape())
		m.resets.Store(r.U32())
		m.readPlaces(r)
	})
	return m.saved.Err()
}

// restore makes processors, chips and devices what they were. Devices begin with Run.
func (m *Machine) restore() error {
	r := m.saved
	m.saved = nil
	cpuids, err := m.cpuids()
	if err != nil {
		return err
	}
	r.Section("cpuid", func(r *wire.Reader) { saved.Same(r, cpuids) })
	states := make([]cpuState, len(m.cpus))
	for i, c := range m.cpus {
		r.Section("cpu"+strconv.Itoa(int(c.index)), func(r *wire.Reader) { states[i].read(r, len(c.fresh.xsave)) })
	}
	var chips platform
	var clock abi.KVMClockData
	var since time.Duration
	r.Section("chips", func(r *wire.Reader) { clock, since = chips.read(r) })
	if err := r.Err(); err != nil {
		return err
	}
	for i, c := range m.cpus {
		if err := states[i].put(c, since); err != nil {
			return err
		}
	}
	if err := chips.put(m.vm, clock.Clock+uint64(since)); err != nil {
		return err
	}
	for _, p := range m.parts() {
		r.Section(p.name, p.Load)
	}
	for i, d := range m.inOrder() {
		r.Section(deviceName(i), d.Load)
	}
	if err := r.Close(); err != nil {
		return err
	}
	if err := m.memory.Write(m.image.Generation(), m.generation[:]); err != nil {
		return err
	}
	m.pm.Raise(legacy.EventGeneration)
	return nil
}

// saveChips writes interrupt chips, timer and clock, and what time it is.
func saveChips(vm *abi.VM, w *wire.Writer) error {
	var p platform
	if err := p.get(vm); err != nil {
		return err
	}
	clock, err := vm.Clock()
	if err != nil {
		return err
	}
	for i := range p.irq {
		w.Fixed(abi.Raw(&p.irq[i]))
	}
	w.Fixed(abi.Raw(&p.pit))
	w.Fixed(abi.Raw(&clock))
	w.U64(uint64(time.Now().UnixNano()))
	return nil
}

// read returns the clock as it was, and how long ago that is: the guest's clocks step
// over it. If the host's clock was set back since, they do not.
func (p *platform) read(r *wire.Reader) (clock abi.KVMClockData, since time.Duration) {
	for i := range p.irq {
		r.Fixed(abi.Raw(&p.irq[i]))
	}
	r.Fixed(abi.Raw(&p.pit))
	r.Fixed(abi.Raw(&clock))
	return clock, max(time.Since(time.Unix(0, int64(r.U64()))), 0)
}

// cpuState is what one processor has, as it is in a section: each field raw, in this
// order.
type cpuState struct {
	mp       uint32
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

// save reads a processor. KVM's rules: its activity first, as asking for that takes up
// a pending INIT and SIPI; events last.
func (c *cpu) save(w *wire.Writer) error {
	s := cpuState{xsave: make([]byte, len(c.fresh.xsave))}
	var err error
	for _, step := range []func(){
		func() { s.mp, err = c.fd.MPState() },
		func() { s.tscKHz, err = c.fd.TSCKHz() },
		func() { s.regs, err = c.fd.Regs() },
		func() { s.sregs, err = c.fd.Sregs() },
		func() { s.xcrs, err = c.fd.XCRs() },
		func() { err = c.fd.Xsave(s.xsave) },
		func() { s.debug, err = c.fd.DebugRegs() },
		func() { s.lapic, err = c.fd.LAPIC() },
		func() { err = s.getMSRs(c) },
		func() { s.events, err = c.fd.Events() },
	} {
		if step(); err != nil {
			return err
		}
	}
	w.U32(s.mp)
	w.U64(s.tscKHz)
	w.Fixed(abi.Raw(&s.regs))
	w.Fixed(abi.Raw(&s.sregs))
	w.Fixed(abi.Raw(&s.xcrs))
	w.Blob(s.xsave)
	w.Fixed(abi.Raw(&s.debug))
	w.Fixed(abi.Raw(&s.lapic))
	w.Blob(abi.RawList(s.msrs))
	w.Fixed(abi.Raw(&s.deadline))
	w.Fixed(abi.Raw(&s.events))
	return nil
}

// getMSRs reads all that the processor had at power-on, and the counter.
func (s *cpuState) getMSRs(c *cpu) error {
	s.msrs = append(s.msrs, abi.KVMMSREntry{Index: msrTSC})
	for _, e := range c.fresh.msrs {
		if e.Index != msrTSCDeadline {
			s.msrs = append(s.msrs, abi.KVMMSREntry{Index: e.Index})
		}
	}
	if n, err := c.fd.MSRs(s.msrs); err != nil {
		return err
	} else if n < len(s.msrs) {
		return errMSR(s.msrs[n].Index)
	}
	one := []abi.KVMMSREntry{{Index: msrTSCDeadline}}
	_, err := c.fd.MSRs(one) // none where there is no such timer: 0
	s.deadline = one[0]
	return err
}

func errMSR(index uint32) error {
	return errors.New("MSR 0x" + strconv.FormatUint(uint64(index), 16) + " cannot be saved or restored")
}

const maxMSRs = 4096

func (s *cpuState) read(r *wire.Reader, xsave int) {
	s.mp, s.tscKHz = r.U32(), r.U64()
	r.Fixed(abi.Raw(&s.regs))
	r.Fixed(abi.Raw(&s.sregs))
	r.Fixed(abi.Raw(&s.xcrs))
	if s.xsave = r.Blob(xsave); len(s.xsave) != xsave {
		r.Fail(saved.ErrForeign)
	}
	r.Fixed(abi.Raw(&s.debug))
	r.Fixed(abi.Raw(&s.lapic))
	entry := len(abi.Raw(&s.deadline))
	list := r.Blob(maxMSRs * entry)
	s.msrs = make([]abi.KVMMSREntry, len(list)/entry)
	copy(abi.RawList(s.msrs), list)
	r.Fixed(abi.Raw(&s.deadline))
	r.Fixed(abi.Raw(&s.events))
}

// put restores a processor that never ran. The local APIC takes its base from the
// special registers, and its timer needs the counter, which goes on by the time that
// passed.
func (s *cpuState) put(c *cpu, since time.Duration) error {
	for i := range s.msrs {
		if e := &s.msrs[i]; e.Index == msrTSC {
			e.Data += uint64(since/time.Microsecond) * s.tscKHz / 1000
		}
	}
	for _, step := range []func() error{
		func() error { return c.fd.SetTSCKHz(s.tscKHz) },
		func() error { return c.fd.SetMPState(s.mp) },
		func() error { return c.fd.SetRegs(&s.regs) },
		func() error { return c.fd.SetSregs(&s.sregs) },
		func() error { return c.fd.SetXCRs(&s.xcrs) },
		func() error { return c.fd.SetXsave(s.xsave) },
		func() error { return c.fd.SetDebugRegs(&s.debug) },
		func() error { return c.fd.SetLAPIC(&s.lapic) },
		func() error { return c.putMSRs(s.msrs) },
		func() error { return s.putDeadline(c) },
		func() error { return c.fd.SetEvents(&s.events) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	// The guest's watchdogs are told. EINVAL: it has not looked at that clock yet.
	if err := c.fd.KVMClockCtrl(); err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	return nil
}

func (s *cpuState) putDeadline(c *cpu) error {
	if s.deadline.Data == 0 {
		return nil
	}
	return c.putMSRs([]abi.KVMMSREntry{s.deadline})
}

// putMSRs writes MSRs. One that can only be read must have its value by itself.
func (c *cpu) putMSRs(entries []abi.KVMMSREntry) error {
	for len(entries) > 0 {
		n, err := c.fd.SetMSRs(entries)
		if err != nil {
			return err
		}
		if n < len(entries) {
			one := []abi.KVMMSREntry{{Index: entries[n].Index}}
			if got, err := c.fd.MSRs(one); err != nil || got != 1 || one[0].Data != entries[n].Data {
				return errors.Join(saved.ErrForeign, errMSR(entries[n].Index), err)
			}
			n++
		}
		entries = entries[n:]
	}
	return nil
}
