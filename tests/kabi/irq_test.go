// SPDX-License-Identifier: Apache-2.0

//go:build lab

package kabi

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

const (
	irqVector   = 0x40
	handlerAddr = 0x1800
	irqPort     = 0x30
)

// waitForIRQ loads a guest that halts with interrupts on, whose handler writes
// the vector to irqPort, and switches its local APIC on.
func (m *machine) waitForIRQ(before ...[]byte) {
	m.t.Helper()
	copy(m.mem[handlerAddr:], append(out8(irqPort, irqVector), 0xcf)) // iret
	binary.LittleEndian.PutUint16(m.mem[4*irqVector:], handlerAddr)
	apic, err := m.cpu.LAPIC()
	ok(m.t, err)
	apic.Regs[0xf0], apic.Regs[0xf1] = 0xff, 1 // enabled, spurious vector 255
	ok(m.t, m.cpu.SetLAPIC(&apic))
	m.load(append(before, waitIRQ)...)
}

// ring signals an eventfd.
func ring(t testing.TB, fd int) {
	t.Helper()
	_, err := unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	ok(t, err)
}

var toVCPU0 = abi.KVMMSI{AddressLo: 0xfee0_0000, Data: irqVector}

func TestSignalMSI(t *testing.T) {
	m := newMachine(t, withMem)
	m.waitForIRQ()
	n, err := m.vm.SignalMSI(toVCPU0)
	ok(t, err)
	if n != 1 {
		t.Errorf("went to %d vCPUs, want 1", n)
	}
	m.wantIO(irqPort, irqVector)
}

// TestSignalNMI sends an MSI with delivery mode 4, which needs no APIC and no
// open gate of the processor.
func TestSignalNMI(t *testing.T) {
	m := newMachine(t, withMem)
	m.waitForIRQ()
	copy(m.mem[handlerAddr+0x100:], out8(irqPort, 2))
	binary.LittleEndian.PutUint16(m.mem[4*2:], handlerAddr+0x100)
	_, err := m.vm.SignalMSI(abi.KVMMSI{AddressLo: 0xfee0_0000, Data: 4 << 8})
	ok(t, err)
	m.wantIO(irqPort, 2)
}

// TestSignalLine raises a line of the old interrupt controller.
func TestSignalLine(t *testing.T) {
	m := newMachine(t, withMem)
	m.waitForIRQ( // after it set the controller up: vectors from irqVector on, nothing masked
		out8(0x20, 0x11), out8(0x21, irqVector), out8(0x21, 4), out8(0x21, 1), out8(0x21, 0),
		out8(outPort, 1),
	)
	binary.LittleEndian.PutUint16(m.mem[4*(irqVector+4):], handlerAddr)
	m.wantIO(outPort, 1)
	ok(t, m.vm.SignalLine(4, 1))
	m.wantIO(irqPort, irqVector)
	ok(t, m.vm.SignalLine(4, 0))
}

// TestIRQFD lets an eventfd raise what the routes say, and follows them when they
// change.
func TestIRQFD(t *testing.T) {
	m := newMachine(t, withMem)
	m.waitForIRQ()
	bell := eventFD(t)
	const gsi = 30
	ok(t, m.vm.SetRoutes([]abi.KVMIRQRoutingEntry{abi.RouteMSI(gsi, 0xfee0_0000, irqVector)}))
	irq := abi.KVMIRQFD{FD: uint32(bell), GSI: gsi}
	ok(t, m.vm.MapIRQ(irq))
	ring(t, bell)
	m.wantIO(irqPort, irqVector)

	wantErr(t, "the same again", m.vm.MapIRQ(irq), unix.EBUSY)
	irq.Flags = abi.KVMIRQFDFlagDeassign
	ok(t, m.vm.MapIRQ(irq))
	ring(t, bell)
	if n := rung(t, bell); n != 1 {
		t.Errorf("after it was taken away the eventfd holds %d, want 1", n)
	}
}

func TestIRQRefuses(t *testing.T) {
	m := newMachine(t, withMem)
	bell := eventFD(t)
	for _, tt := range []struct {
		name string
		irq  abi.KVMIRQFD
		want error
	}{
		{"unknown flag", abi.KVMIRQFD{FD: uint32(bell), GSI: 5, Flags: 1 << 2}, unix.EINVAL},
		{"no descriptor", abi.KVMIRQFD{FD: 1 << 20, GSI: 5}, unix.EBADF},
		{"not an eventfd", abi.KVMIRQFD{FD: uint32(m.vm.FD()), GSI: 5}, unix.EINVAL},
		{"resample without eventfd", abi.KVMIRQFD{FD: uint32(bell), GSI: 5, Flags: abi.KVMIRQFDFlagResample, ResampleFD: 1 << 20}, unix.EBADF},
	} {
		wantErr(t, tt.name, m.vm.MapIRQ(tt.irq), tt.want)
	}
}

func TestRoutesRefuse(t *testing.T) {
	m := newMachine(t, withMem)
	give := func(arg []byte) error {
		_, _, err := newArgument(t).ioctl(m.vm.FD(), abi.IOCVMSetRoutes, arg)
		return err
	}
	good := abi.RouteMSI(24, 0xfee0_0000, irqVector)
	wantErr(t, "no routes", m.vm.SetRoutes(nil), nil)
	wantErr(t, "one route", m.vm.SetRoutes([]abi.KVMIRQRoutingEntry{good}), nil)
	wantErr(t, "fewer bytes than entries", give(set32(8, 2)(routesArg(good))), unix.EINVAL)
	wantErr(t, "count that wraps", give(set32(8, 0x5555_5556)(routesArg(good))), unix.EINVAL)
	wantErr(t, "more bytes than entries", give(set32(8, 0)(routesArg(good))), unix.E2BIG)
	wantErr(t, "routing.flags", give(set32(12, 1)(routesArg(good))), unix.EINVAL)
	bad := good
	bad.Type = 77
	wantErr(t, "unknown type", m.vm.SetRoutes([]abi.KVMIRQRoutingEntry{bad}), unix.EINVAL)
	bad = good
	bad.GSI = 5000
	wantErr(t, "interrupt beyond all", m.vm.SetRoutes([]abi.KVMIRQRoutingEntry{bad}), unix.EINVAL)
}

func TestRoutesMost(t *testing.T) {
	m := newMachine(t, withMem)
	routes := make([]abi.KVMIRQRoutingEntry, abi.MaxRoutes+1)
	for i := range routes {
		routes[i] = abi.RouteMSI(uint32(i%4000), 0xfee0_0000, irqVector)
	}
	if err := m.vm.SetRoutes(routes); err == nil {
		t.Errorf("%d routes: no error", len(routes))
	}
	for i := range routes {
		routes[i].GSI = uint32(i)
	}
	ok(t, m.vm.SetRoutes(routes[:abi.MaxRoutes]))
}
