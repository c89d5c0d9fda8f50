// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

const (
	memSize  = 64 << 10
	codeAddr = 0x1000
	cpuids   = 100 // exits for one RUN of cpuidLoop
)

var (
	// portWrites is: mov al, 1; then out 0x10, al for ever.
	portWrites = []byte{0xb0, 1, 0xe6, 0x10, 0xeb, 0xfc}
	// cpuidLoop is: mov si, cpuids; xor eax, eax; cpuid; dec si; jnz to xor;
	// out 0x10, al; jmp to the start.
	cpuidLoop = []byte{
		0xbe, cpuids, 0, 0x66, 0x31, 0xc0, 0x0f, 0xa2, 0x4e, 0x75, 0xf8, 0xe6, 0x10, 0xeb, 0xf1,
	}
	// spin is: jmp to itself.
	spin = []byte{0xeb, 0xfe}
)

// guest is a VM whose vCPUs begin at the same code, on either side.
type guest struct {
	vm   *abi.VM // nil on KVM's side
	mem  []byte
	cpus []int
	fds  []int // to close, in this order
	req  uintptr
}

// memory is a guest's, with the code in it.
func (g *guest) memory(code []byte) (abi.KVMUserspaceMemoryRegion, error) {
	mem, err := unix.Mmap(-1, 0, memSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return abi.KVMUserspaceMemoryRegion{}, err
	}
	copy(mem[codeAddr:], code)
	g.mem = mem
	return abi.KVMUserspaceMemoryRegion{
		MemorySize: memSize, UserspaceAddr: uint64(uintptr(unsafe.Pointer(&mem[0]))),
	}, nil
}

func (g *guest) close() error {
	var errs []error
	for _, fd := range g.fds {
		errs = append(errs, unix.Close(fd))
	}
	return errors.Join(append(errs, unix.Munmap(g.mem))...)
}

// run runs a vCPU up to an exit. It takes the bare system call: the runtime's
// share would hide the difference.
func (g *guest) run(i int) error {
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(g.cpus[i]), g.req, 0)
		if errno == 0 {
			return nil
		}
		if errno != unix.EINTR {
			return errno
		}
	}
}

// runOnce runs a vCPU as a monitor in Go does.
func (g *guest) runOnce(i int) error {
	_, err := abi.Ioctl(g.cpus[i], g.req, nil)
	return err
}

func (g *guest) mapRun(i int) (*abi.KVMRun, error) {
	area, err := unix.Mmap(g.cpus[i], 0, int(unsafe.Sizeof(abi.KVMRun{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return (*abi.KVMRun)(unsafe.Pointer(&area[0])), nil
}

var start = abi.KVMRegs{Rip: codeAddr, Rflags: 2}

// uuids are of the VMs of this process.
var uuids uint32

// newOurs makes the guest through /dev/vmm.
func newOurs(cpus int, code []byte) (*guest, error) {
	d, err := abi.OpenDevice(abi.DevicePath)
	if err != nil {
		return nil, err
	}
	uuids++
	uuid := [abi.UUIDLen]byte{15: 0xe}
	binary.BigEndian.PutUint32(uuid[:], uuids)
	vm, _, err := d.Create(uuid, "cost")
	if err != nil {
		return nil, err
	}
	g := &guest{vm: vm, req: abi.IOCVCPURun}
	if err := vm.Bind(); err != nil {
		return nil, err
	}
	var all []*abi.VCPU
	for i := range cpus {
		cpu, err := vm.CreateVCPU(uint32(i))
		if err != nil {
			return nil, err
		}
		all = append(all, cpu)
		g.cpus, g.fds = append(g.cpus, cpu.FD()), append(g.fds, cpu.FD())
	}
	g.fds = append(g.fds, vm.FD(), d.FD())
	region, err := g.memory(code)
	if err != nil {
		return nil, err
	}
	if err := vm.MapMemory(region); err != nil {
		return nil, err
	}
	for _, cpu := range all {
		s, err := cpu.Sregs()
		if err != nil {
			return nil, err
		}
		s.Cs.Base, s.Cs.Selector = 0, 0
		if err := errors.Join(cpu.SetSregs(&s), cpu.SetRegs(&start)); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// newRaw makes the same guest through /dev/kvm.
func newRaw(cpus int, code []byte) (*guest, error) {
	dev, err := unix.Open("/dev/kvm", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	vm, err := abi.Ioctl(dev, abi.IOCKVMCreateVM, nil)
	if err != nil {
		return nil, fmt.Errorf("create VM: %w", err)
	}
	g := &guest{req: abi.IOCKVMRun}
	for i := range cpus {
		cpu, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(vm), abi.IOCKVMCreateVCPU, uintptr(i))
		if errno != 0 {
			return nil, fmt.Errorf("create vCPU: %w", errno)
		}
		g.cpus, g.fds = append(g.cpus, int(cpu)), append(g.fds, int(cpu))
	}
	g.fds = append(g.fds, vm, dev)
	region, err := g.memory(code)
	if err != nil {
		return nil, err
	}
	if _, err := abi.Ioctl(vm, abi.IOCKVMSetUserMemoryRegion, unsafe.Pointer(&region)); err != nil {
		return nil, fmt.Errorf("set memory: %w", err)
	}
	for _, cpu := range g.cpus {
		if err := startRaw(cpu); err != nil {
			return nil, err
		}
	}
	return g, nil
}

func startRaw(cpu int) error {
	var s abi.KVMSregs
	if _, err := abi.Ioctl(cpu, abi.IOCKVMGetSregs, unsafe.Pointer(&s)); err != nil {
		return fmt.Errorf("get sregs: %w", err)
	}
	s.Cs.Base, s.Cs.Selector = 0, 0
	if _, err := abi.Ioctl(cpu, abi.IOCKVMSetSregs, unsafe.Pointer(&s)); err != nil {
		return fmt.Errorf("set sregs: %w", err)
	}
	if _, err := abi.Ioctl(cpu, abi.IOCKVMSetRegs, unsafe.Pointer(&start)); err != nil {
		return fmt.Errorf("set regs: %w", err)
	}
	return nil
}
