// SPDX-License-Identifier: Apache-2.0

//go:build lab

package kabi

import (
	"bytes"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// Each class of registers is written with something else than it had, and read
// back.

func TestRegsGeneral(t *testing.T) {
	c := newMachine(t, withMem).cpu
	want := abi.KVMRegs{Rax: 1, Rbx: 2, R15: ^uint64(0), Rip: 0x1234, Rsp: 0x5678, Rflags: 2}
	ok(t, c.SetRegs(&want))
	got, err := c.Regs()
	ok(t, err)
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestRegsSystem(t *testing.T) {
	c := newMachine(t, withMem).cpu
	want, err := c.Sregs()
	ok(t, err)
	want.Cs.Base, want.Cs.Selector = 0x12340, 0x1234
	want.Idt = abi.KVMDTable{Base: 0x777000, Limit: 0x3ff}
	want.Cr2 = 0xabc
	ok(t, c.SetSregs(&want))
	got, err := c.Sregs()
	ok(t, err)
	if got.Cs != want.Cs || got.Idt != want.Idt || got.Cr2 != want.Cr2 {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	want.Cr4 = 1 << 63
	wantErr(t, "a bit of CR4 that is none", c.SetSregs(&want), unix.EINVAL)
}

func TestRegsFPU(t *testing.T) {
	c := newMachine(t, withMem).cpu
	want, err := c.FPU()
	ok(t, err)
	want.Fcw, want.Mxcsr = 0x27f, 0x1f80
	want.Xmm[3][5] = 0x99
	ok(t, c.SetFPU(&want))
	got, err := c.FPU()
	ok(t, err)
	if got.Fcw != want.Fcw || got.Xmm != want.Xmm {
		t.Errorf("fcw %#x xmm3 %x, want %#x %x", got.Fcw, got.Xmm[3], want.Fcw, want.Xmm[3])
	}
}

func TestRegsXsave(t *testing.T) {
	m := newMachine(t, withMem)
	size, err := m.vm.CheckExtension(abi.KVMCapXsave2)
	ok(t, err)
	size = max(size, 4096)
	state := make([]byte, size)
	ok(t, m.cpu.Xsave(state))
	copy(state[160:], "sixteen bytes...") // XMM0 of the legacy area
	state[512] |= 2                       // and XSTATE_BV says that it is there
	ok(t, m.cpu.SetXsave(state))
	got := make([]byte, size)
	ok(t, m.cpu.Xsave(got))
	if !bytes.Equal(got[160:176], state[160:176]) {
		t.Errorf("xmm0 %q, want %q", got[160:176], state[160:176])
	}
}

func TestRegsXCRs(t *testing.T) {
	c := newMachine(t, withMem).cpu
	x, err := c.XCRs()
	ok(t, err)
	if x.NrXCRs < 1 || x.XCRs[0].XCR != 0 || x.XCRs[0].Value&1 == 0 {
		t.Errorf("%d registers, the first %+v, want XCR0 with x87", x.NrXCRs, x.XCRs[0])
	}
	ok(t, c.SetXCRs(&x))
}

func TestRegsDebug(t *testing.T) {
	c := newMachine(t, withMem).cpu
	want, err := c.DebugRegs()
	ok(t, err)
	want.Db = [4]uint64{0x1000, 0x2000, 0x3000, 0x4000}
	ok(t, c.SetDebugRegs(&want))
	got, err := c.DebugRegs()
	ok(t, err)
	if got.Db != want.Db {
		t.Errorf("%x, want %x", got.Db, want.Db)
	}
}

func TestRegsMSRs(t *testing.T) {
	c := newMachine(t, withMem).cpu
	set := []abi.KVMMSREntry{{Index: msrSysenterCS, Data: 0x10}, {Index: msrTSC, Data: 1 << 40}, {Index: msrUnknown, Data: 1}}
	n, err := c.SetMSRs(set)
	ok(t, err)
	if n != 2 {
		t.Errorf("%d entries written, want 2: the third is unknown", n)
	}
	got := []abi.KVMMSREntry{{Index: msrSysenterCS}, {Index: msrTSC}, {Index: msrUnknown}}
	n, err = c.MSRs(got)
	ok(t, err)
	if n != 2 || got[0].Data != 0x10 || got[1].Data < 1<<40 {
		t.Errorf("%d entries %+v", n, got)
	}
	if n, err = c.SetMSRs(nil); err != nil || n != 0 {
		t.Errorf("no entries: %d, %v", n, err)
	}
	count := func(n uint32) error {
		_, _, err := newArgument(t).ioctl(c.FD(), abi.IOCVCPUSetRegs, set32(8, n)(payload(abi.RegsMSRs, make([]byte, 8+16))))
		return err
	}
	wantErr(t, "more entries than bytes", count(2), unix.EINVAL)
	wantErr(t, "a count that wraps", count(0x1000_0001), unix.EINVAL)
}

func TestRegsCPUID(t *testing.T) {
	m := newMachine(t, withMem)
	supported, err := m.dev.SupportedCPUID()
	ok(t, err)
	if len(supported) < 10 {
		t.Fatalf("KVM supports %d entries", len(supported))
	}
	ok(t, m.cpu.SetCPUID(supported))
	got, err := m.cpu.CPUID()
	ok(t, err)
	if len(got) != len(supported) {
		t.Errorf("%d entries, want %d", len(got), len(supported))
	}
	few := payload(abi.RegsCPUID, bytesOf(abi.KVMCPUID2{Nent: 1}), make([]byte, 40))
	_, _, err = newArgument(t).ioctl(m.cpu.FD(), abi.IOCVCPUGetRegs, few)
	wantErr(t, "room for one entry", err, unix.E2BIG)
	_, _, err = newArgument(t).ioctl(m.cpu.FD(), abi.IOCVCPUGetRegs, set32(8, 2)(few))
	wantErr(t, "more entries than bytes", err, unix.EINVAL)
}

func TestRegsLAPIC(t *testing.T) {
	c := newMachine(t, withMem).cpu
	want, err := c.LAPIC()
	ok(t, err)
	want.Regs[0x80] = 0x30 // task priority
	ok(t, c.SetLAPIC(&want))
	got, err := c.LAPIC()
	ok(t, err)
	if got.Regs[0x80] != 0x30 {
		t.Errorf("task priority %#x, want 0x30", got.Regs[0x80])
	}
}

// TestLAPICID shows that a vCPU's number is its APIC id.
func TestLAPICID(t *testing.T) {
	m := newMachine(t, withVCPU)
	apic, err := m.newVCPU(5).LAPIC()
	ok(t, err)
	if apic.Regs[0x23] != 5 {
		t.Errorf("APIC id %d, want 5", apic.Regs[0x23])
	}
}

func TestRegsMPState(t *testing.T) {
	m := newMachine(t, withVCPU)
	second := m.newVCPU(1)
	if s, err := second.MPState(); err != nil || s != abi.KVMMPStateUninitialized {
		t.Errorf("second vCPU: %d, %v, want uninitialized", s, err)
	}
	ok(t, second.SetMPState(abi.KVMMPStateRunnable))
	if s, err := second.MPState(); err != nil || s != abi.KVMMPStateRunnable {
		t.Errorf("second vCPU: %d, %v, want runnable", s, err)
	}
	wantErr(t, "no such state", second.SetMPState(99), unix.EINVAL)
}

func TestRegsEvents(t *testing.T) {
	c := newMachine(t, withMem).cpu
	e, err := c.Events()
	ok(t, err)
	e.NMI.Masked = 1
	ok(t, c.SetEvents(&e))
	got, err := c.Events()
	ok(t, err)
	if got.NMI.Masked != 1 {
		t.Errorf("NMI masked %d, want 1", got.NMI.Masked)
	}
}

func TestRegsTSC(t *testing.T) {
	m := newMachine(t, withMem)
	khz, err := m.cpu.TSCKHz()
	ok(t, err)
	if khz < 1000 {
		t.Errorf("%d kHz", khz)
	}
	ok(t, m.cpu.SetTSCKHz(khz))
}

// TestKVMClockCtrl shows that the answer without a guest's clock is KVM's.
func TestKVMClockCtrl(t *testing.T) {
	m := newMachine(t, withMem)
	wantErr(t, "guest without kvmclock", m.cpu.KVMClockCtrl(), unix.EINVAL)
	_, _, err := newArgument(t).ioctl(m.cpu.FD(), abi.IOCVCPUGetRegs, payload(abi.RegsKVMClockCtrl))
	wantErr(t, "GET of a class that can only be set", err, unix.EINVAL)
}

// ---- the platform ----

func TestStateIRQChip(t *testing.T) {
	m := newMachine(t, withMem)
	for _, id := range []uint32{abi.KVMIRQChipPICMaster, abi.KVMIRQChipPICSlave} {
		chip, err := m.vm.IRQChip(id)
		ok(t, err)
		chip.PIC().Imr = 0x5a
		ok(t, m.vm.SetIRQChip(&chip))
		if chip, err = m.vm.IRQChip(id); err != nil || chip.PIC().Imr != 0x5a {
			t.Errorf("chip %d: mask %#x, %v", id, chip.PIC().Imr, err)
		}
	}
	chip, err := m.vm.IRQChip(abi.KVMIRQChipIOAPIC)
	ok(t, err)
	chip.IOAPIC().Redirtbl[3] = 1<<16 | 0x77
	ok(t, m.vm.SetIRQChip(&chip))
	if chip, err = m.vm.IRQChip(abi.KVMIRQChipIOAPIC); err != nil || chip.IOAPIC().Redirtbl[3]&0xff != 0x77 {
		t.Errorf("pin 3 %#x, %v", chip.IOAPIC().Redirtbl[3], err)
	}
	_, err = m.vm.IRQChip(9)
	wantErr(t, "no such chip", err, unix.EINVAL)
	_, err = newMachine(t, bound).vm.IRQChip(abi.KVMIRQChipIOAPIC)
	wantErr(t, "VM without chips", err, unix.ENXIO)
}

func TestStatePIT(t *testing.T) {
	m := newMachine(t, withMem)
	pit, err := m.vm.PIT()
	ok(t, err)
	pit.Channels[2].Count = 0x4321
	ok(t, m.vm.SetPIT(&pit))
	if pit, err = m.vm.PIT(); err != nil || pit.Channels[2].Count != 0x4321 {
		t.Errorf("count %#x, %v", pit.Channels[2].Count, err)
	}
}

func TestStateClock(t *testing.T) {
	m := newMachine(t, withMem)
	const later = 3600e9
	ok(t, m.vm.SetClock(&abi.KVMClockData{Clock: later}))
	c, err := m.vm.Clock()
	ok(t, err)
	if c.Clock < later || c.Clock > later+60e9 {
		t.Errorf("clock %d, want a little more than %d", c.Clock, uint64(later))
	}
}

func TestSetupCaps(t *testing.T) {
	m := newMachine(t, bound)
	give := func(capability uint32, arg uint64) error {
		return m.vm.EnableCap(abi.KVMEnableCap{Cap: capability, Args: [4]uint64{arg}})
	}
	for name, err := range map[string]error{
		"exception payload": give(abi.KVMCapExceptionPayload, 1),
		"x2apic api":        give(abi.KVMCapX2APICAPI, abi.KVMX2APICAPIUse32bitIDs),
		"split irqchip":     give(abi.KVMCapSplitIRQChip, 24),
	} {
		wantErr(t, name, err, nil)
	}
	for _, capability := range []uint32{0, 116, 190, 191, 219, 0xffff_ffff} {
		wantErr(t, "a capability that is not in the list", give(capability, 0), unix.EOPNOTSUPP)
	}
	wantErr(t, "irqchip beside a split one", m.vm.CreateIRQChip(), unix.EEXIST)
}

func TestInfo(t *testing.T) {
	m := newMachine(t, withMem)
	a, err := m.dev.ABIInfo()
	ok(t, err)
	if a.ABI != abi.ABINumber || a.Reserved != 0 || a.Capabilities&abi.CapKVM == 0 {
		t.Errorf("abi %+v", a)
	}
	l, err := m.vm.Limits()
	ok(t, err)
	if l.MaxVMs < 1 || l.MaxVCPUs < 4 || l.MaxMemSlots < 8 || l.MaxDoorbells < 8 || l.MaxMemory < 1<<30 {
		t.Errorf("limits %+v", l)
	}
	msrs, err := m.dev.MSRList()
	ok(t, err)
	if !slices.Contains(msrs, msrSysenterCS) {
		t.Errorf("%d MSRs, without the one of SYSENTER", len(msrs))
	}
	if n, err := m.vm.CheckExtension(abi.KVMCapIRQChip); err != nil || n < 1 {
		t.Errorf("irqchip: %d, %v", n, err)
	}
	if n, err := m.vm.CheckExtension(0x7fff_ffff); err != nil || n != 0 {
		t.Errorf("unknown extension: %d, %v", n, err)
	}
	i := m.info()
	if i.Monitor != uint32(unix.Getpid()) || i.VCPUs != 1 || i.Memory != memSize || i.Owner != 0 {
		t.Errorf("info %+v", i)
	}
	few := payload(abi.InfoKVMCPUID, bytesOf(abi.KVMCPUID2{Nent: 1}), make([]byte, 40))
	_, _, err = newArgument(t).ioctl(m.dev.FD(), abi.IOCGetInfo, few)
	wantErr(t, "CPUID with room for one", err, unix.E2BIG)
	_, _, err = newArgument(t).ioctl(m.dev.FD(), abi.IOCGetInfo, set32(8, 100)(few))
	wantErr(t, "CPUID with more entries than bytes", err, unix.EINVAL)
}
