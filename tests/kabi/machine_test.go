// SPDX-License-Identifier: Apache-2.0

//go:build lab

package kabi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// stage is how far a machine of a test has come.
type stage int

const (
	created   stage = iota
	bound           // no vCPU yet
	withVCPU        // interrupt chips, timer and a vCPU
	withMem         // and memory
	running         // first RUN is over
	stopped         // by VM_STOP
	destroyed       // by VM_DESTROY
)

func (s stage) String() string {
	return [...]string{"created", "bound", "with vCPU", "with memory", "running", "stopped", "destroyed"}[s]
}

const (
	memSize  = 64 << 10
	codeAddr = 0x1000
	dataAddr = 0x3000 // where guests keep their counter
	outPort  = 0x10
)

// machine is a VM of a test, whose monitor is the test process.
type machine struct {
	t   testing.TB
	dev *abi.Device
	vm  *abi.VM
	id  uint64
	cpu *abi.VCPU // number 0; nil before withVCPU
	mem []byte
}

var serial atomic.Uint32

// newUUID is another one at each call of this process and its children.
func newUUID() (u [abi.UUIDLen]byte) {
	binary.BigEndian.PutUint32(u[0:], uint32(os.Getpid()))
	binary.BigEndian.PutUint32(u[4:], serial.Add(1))
	u[15] = 1
	return u
}

func openDevice(t testing.TB) *abi.Device {
	t.Helper()
	d, err := abi.OpenDevice(abi.DevicePath)
	ok(t, err)
	t.Cleanup(func() { closeAll(t, d) })
	return d
}

// newMachine makes a VM and brings it to a stage. All of it goes with the test.
func newMachine(t testing.TB, at stage) *machine {
	t.Helper()
	m := &machine{t: t, dev: openDevice(t)}
	var err error
	m.vm, m.id, err = m.dev.Create(newUUID(), fmt.Sprintf("kabi-%d", serial.Load()))
	ok(t, err)
	t.Cleanup(func() { closeAll(t, m.vm) })
	if at >= bound {
		ok(t, m.vm.Bind())
	}
	if at >= withVCPU {
		m.platform()
		m.cpu = m.newVCPU(0)
		ok(t, m.cpu.MapRun())
	}
	if at >= withMem {
		m.memory()
	}
	switch at {
	case running:
		m.load(out8(outPort, 1), hlt)
		m.wantIO(outPort, 1)
	case stopped:
		ok(t, m.vm.Stop())
	case destroyed:
		ok(t, m.vm.Destroy())
	}
	return m
}

// platform sets up what Intel's processors want, and the interrupt chips.
func (m *machine) platform() {
	m.t.Helper()
	ok(m.t, m.vm.SetTSSAddr(0xfffb_d000))
	ok(m.t, m.vm.SetIdentityMap(0xfffb_c000))
	ok(m.t, m.vm.CreateIRQChip())
	ok(m.t, m.vm.CreatePIT(abi.KVMPITConfig{Flags: abi.KVMPITSpeakerDummy}))
}

func (m *machine) newVCPU(index uint32) *abi.VCPU {
	m.t.Helper()
	c, err := m.vm.CreateVCPU(index)
	ok(m.t, err)
	m.t.Cleanup(func() { closeAll(m.t, c) })
	return c
}

// memory gives the guest 64 KiB at address 0, and logs what it writes.
func (m *machine) memory() {
	m.t.Helper()
	m.mem = pages(m.t, memSize)
	r := region(0, 0, m.mem)
	r.Flags = abi.KVMMemLogDirtyPages
	ok(m.t, m.vm.MapMemory(r))
}

// load writes code to where vCPU 0 will begin, in real mode.
func (m *machine) load(code ...[]byte) {
	m.t.Helper()
	at := codeAddr
	for _, c := range code {
		at += copy(m.mem[at:], c)
	}
	m.start(m.cpu, codeAddr)
}

// start points a vCPU at an address of real mode.
func (m *machine) start(c *abi.VCPU, addr uint64) {
	m.t.Helper()
	sregs, err := c.Sregs()
	ok(m.t, err)
	sregs.Cs.Base, sregs.Cs.Selector = 0, 0
	ok(m.t, c.SetSregs(&sregs))
	ok(m.t, c.SetRegs(&abi.KVMRegs{Rip: addr, Rsp: 0x8000, Rflags: 2}))
	ok(m.t, c.SetMPState(abi.KVMMPStateRunnable))
}

// run runs vCPU 0 up to an exit; a signal of the Go runtime is none.
func (m *machine) run() *abi.KVMRun {
	m.t.Helper()
	ok(m.t, runThrough(m.cpu))
	return m.cpu.RunArea()
}

// runThrough runs until something else than EINTR comes back.
func runThrough(c *abi.VCPU) error {
	for {
		if err := c.Run(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// wantIO runs the guest, which must write value to port.
func (m *machine) wantIO(port uint16, value byte) {
	m.t.Helper()
	r := m.run()
	if r.ExitReason != abi.KVMExitIO {
		m.t.Fatalf("exit reason %d, want a port access", r.ExitReason)
	}
	io, data := r.IO(), m.cpu.IOData()
	if io.Direction != abi.KVMExitIOOut || io.Port != port || len(data) != 1 || data[0] != value {
		m.t.Fatalf("port access %+v data %x, want %#x written to %#x", *io, data, value, port)
	}
}

// info asks about the VM.
func (m *machine) info() abi.VMInfo {
	m.t.Helper()
	i, err := m.vm.Info()
	ok(m.t, err)
	return i
}

// wantState compares state and reason.
func (m *machine) wantState(state abi.VMState, reason abi.Reason) {
	m.t.Helper()
	if i := m.info(); i.State != state || i.Reason != reason {
		m.t.Errorf("state %v reason %v, want %v %v", i.State, i.Reason, state, reason)
	}
}

// counter is the guest's counter at dataAddr.
func (m *machine) counter() uint32 {
	return binary.LittleEndian.Uint32(m.mem[dataAddr:])
}

// region describes guest memory for VM_MAP_MEMORY.
func region(slot uint32, at uint64, mem []byte) abi.KVMUserspaceMemoryRegion {
	return abi.KVMUserspaceMemoryRegion{
		Slot: slot, GuestPhysAddr: at, MemorySize: uint64(len(mem)), UserspaceAddr: addressOf(mem),
	}
}

// pages is memory of its own, for a guest or an argument.
func pages(t testing.TB, size int) []byte {
	t.Helper()
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	ok(t, err)
	t.Cleanup(func() { ok(t, unix.Munmap(mem)) })
	return mem
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantErr compares by errors.Is; want nil is success.
func wantErr(t testing.TB, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func closeAll(t testing.TB, files ...interface{ Close() error }) {
	t.Helper()
	for _, f := range files {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}
