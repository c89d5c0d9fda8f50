// SPDX-License-Identifier: Apache-2.0

//go:build lab

package kabi

import (
	"encoding/binary"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// TestValid gives every command once as it should be.
func TestValid(t *testing.T) {
	for _, c := range commands() {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t, c.at)
			wantErr(t, "valid", m.give(c, nil), nil)
		})
	}
}

// give gives a command with its argument changed by alter, and closes the
// descriptor that it may have made.
func (m *machine) give(c command, alter func([]byte) []byte) error {
	m.t.Helper()
	if c.first != nil {
		c.first(m)
	}
	if c.req == abi.IOCVCPURun {
		// So that a guest that halts does not stay in it. In a state that
		// refuses the run, this is refused too.
		_, _ = ioctlAt(m.fd(c.on), abi.IOCVCPUKick, 0)
	}
	if c.bare {
		_, err := ioctlAt(m.fd(c.on), c.req, 0)
		if err == nil || err == unix.EINTR {
			return nil // a run ends with whatever the guest does, or a kick
		}
		return err
	}
	arg := c.arg(m)
	if alter != nil {
		arg = alter(arg)
	}
	got, _, err := newArgument(m.t).ioctl(m.fd(c.on), c.req, arg)
	if err == nil {
		m.closeMade(c, got)
	}
	return err
}

// closeMade closes the descriptor in the answer of a command that makes one.
func (m *machine) closeMade(c command, got []byte) {
	m.t.Helper()
	var fd int32
	switch c.req {
	case abi.IOCVMCreate:
		fd = fromBytes[abi.VMCreate](got).FD
	case abi.IOCVMOpen:
		fd = fromBytes[abi.VMOpen](got).FD
	case abi.IOCVMDelegate:
		fd = fromBytes[abi.VMDelegate](got).FD
	case abi.IOCVCPUCreate:
		fd = fromBytes[abi.VCPUCreate](got).FD
	case abi.IOCVMGetBackend:
		fd = fromBytes[abi.VMGetBackend](got).Files[0].FD
	default:
		return
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	ok(m.t, err)
	if flags&unix.FD_CLOEXEC == 0 {
		m.t.Errorf("%s: the new descriptor is not close-on-exec", c.name)
	}
	ok(m.t, unix.Close(int(fd)))
}

// setSize writes the size field, and pads or cuts nothing.
func setSize(arg []byte, size int) []byte {
	arg = append([]byte(nil), arg...)
	binary.LittleEndian.PutUint32(arg, uint32(size))
	return arg
}

// grow adds n bytes to the argument; the last of them is b.
func grow(arg []byte, n int, b byte) []byte {
	arg = setSize(append(append([]byte(nil), arg...), make([]byte, n)...), len(arg)+n)
	arg[len(arg)-1] = b
	return arg
}

// set32 changes one 32-bit field.
func set32(at int, value uint32) func([]byte) []byte {
	return func(arg []byte) []byte {
		arg = append([]byte(nil), arg...)
		binary.LittleEndian.PutUint32(arg[at:], value)
		return arg
	}
}

// TestSize gives every command with a size that is wrong in each way.
func TestSize(t *testing.T) {
	sizes := []struct {
		name  string
		alter func([]byte) []byte
		want  error
	}{
		{"zero", func(a []byte) []byte { return setSize(a, 0) }, unix.EINVAL},
		{"of the head but one byte", func(a []byte) []byte { return setSize(a, 7) }, unix.EINVAL},
		{"one byte too small", func(a []byte) []byte { return setSize(a, len(a)-1) }, unix.EINVAL},
		{"larger, tail zero", func(a []byte) []byte { return grow(a, 64, 0) }, nil},
		{"larger, tail not zero", func(a []byte) []byte { return grow(a, 64, 1) }, unix.E2BIG},
		{"one byte larger, not zero", func(a []byte) []byte { return grow(a, 1, 0x80) }, unix.E2BIG},
		{"larger than what can be read", func(a []byte) []byte { return setSize(a, len(a)+8) }, unix.EFAULT},
	}
	for _, c := range commands() {
		if c.bare {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			for _, s := range sizes {
				m := newMachine(t, c.at)
				err := m.give(c, s.alter)
				wantErr(t, "size "+s.name, err, s.want)
			}
		})
	}
}

// TestHugeSize shows that no size makes the kernel allocate or read without end.
func TestHugeSize(t *testing.T) {
	for _, c := range commands() {
		if c.bare {
			continue
		}
		m := newMachine(t, c.at)
		for _, size := range []int{0x7fff_ffff, 0xffff_ffff} {
			err := m.give(c, func(a []byte) []byte { return setSize(a, size) })
			if err != unix.EFAULT && err != unix.E2BIG && err != unix.EINVAL {
				t.Errorf("%s: size %#x: %v, want EFAULT, E2BIG or EINVAL", c.name, size, err)
			}
		}
	}
}

// TestReserved sets every field that must be 0, one by one.
func TestReserved(t *testing.T) {
	for _, c := range commands() {
		for _, at := range c.zero {
			t.Run(fmt.Sprintf("%s at %d", c.name, at), func(t *testing.T) {
				m := newMachine(t, c.at)
				for _, value := range []uint32{1, 1 << 31} {
					wantErr(t, fmt.Sprintf("field is %#x", value), m.give(c, set32(at, value)), unix.EINVAL)
				}
			})
		}
	}
}

// TestUnknownClass asks for classes that are not there.
func TestUnknownClass(t *testing.T) {
	for _, c := range commands() {
		if !c.head {
			continue
		}
		m := newMachine(t, c.at)
		for _, class := range []uint32{0, 15, 0xffff_ffff} {
			wantErr(t, fmt.Sprintf("%s: class %d", c.name, class), m.give(c, set32(4, class)), unix.EINVAL)
		}
	}
}

// TestPointer gives every command with an argument that cannot be read.
func TestPointer(t *testing.T) {
	for _, c := range commands() {
		m := newMachine(t, c.at)
		if c.bare {
			_, err := ioctlAt(m.fd(c.on), c.req, 1)
			wantErr(t, c.name+": argument is not 0", err, unix.EINVAL)
			continue
		}
		for _, addr := range []uintptr{0, newArgument(t).beyond(), 1 << 47, ^uintptr(4095)} {
			_, err := ioctlAt(m.fd(c.on), c.req, addr)
			wantErr(t, fmt.Sprintf("%s: argument at %#x", c.name, addr), err, unix.EFAULT)
		}
	}
}

// TestReadOnlyArgument shows that commands without an answer write nothing, and
// that those with one leave nothing half-made when it cannot be written.
func TestReadOnlyArgument(t *testing.T) {
	answers := map[uintptr]bool{
		abi.IOCGetInfo: true, abi.IOCVMCreate: true, abi.IOCVMOpen: true, abi.IOCVMDelegate: true,
		abi.IOCVCPUCreate: true, abi.IOCVMGetState: true, abi.IOCVCPUGetRegs: true,
		abi.IOCVMAttachDisk: true, abi.IOCVMAttachNIC: true, abi.IOCVMGetBackend: true, abi.IOCVMPause: true,
		abi.IOCVMGetStats: true,
	}
	for _, c := range commands() {
		if c.bare || c.name == "VM_SIGNAL line" { // KVM writes its status back
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t, c.at)
			if c.first != nil {
				c.first(m)
			}
			a := newArgument(t)
			at := a.put(c.arg(m))
			files := len(openFiles())
			ok(t, unix.Mprotect(a.page, unix.PROT_READ))
			_, err := ioctlAt(m.fd(c.on), c.req, uintptr(addressOf(at)))
			ok(t, unix.Mprotect(a.page, unix.PROT_READ|unix.PROT_WRITE))
			var want error
			if answers[c.req] {
				want = unix.EFAULT
			}
			wantErr(t, "argument is read-only", err, want)
			if now := len(openFiles()); now != files {
				t.Errorf("%d descriptors, %d before", now, files)
			}
		})
	}
}

// TestKindOfDescriptor gives every command to the descriptors that do not know
// it, and numbers that nothing knows.
func TestKindOfDescriptor(t *testing.T) {
	m := newMachine(t, withMem)
	for _, c := range commands() {
		if c.req == abi.IOCGetInfo {
			continue
		}
		for _, k := range []kind{onDevice, onVM, onVCPU} {
			if k == c.on {
				continue
			}
			_, _, err := newArgument(t).ioctl(m.fd(k), c.req, make([]byte, 4096))
			wantErr(t, fmt.Sprintf("%s on a %v descriptor", c.name, k), err, unix.ENOTTY)
		}
	}
	unknown := []uintptr{0, abi.IOCMagic << 8, 0xffff_ffff, abi.IOCKVMRun, abi.IOCKVMCreateVM}
	for _, nr := range []uintptr{0x01, 0x12, 0x1f, 0x29, 0x3f, 0x4d, 0x5f, 0x61, 0x7f, 0x86, 0xff} {
		unknown = append(unknown, abi.IOCMagic<<8|nr)
	}
	for _, req := range unknown {
		if req == abi.IOCGetInfo {
			continue
		}
		for _, k := range []kind{onDevice, onVM, onVCPU} {
			_, err := ioctlAt(m.fd(k), req, 0)
			wantErr(t, fmt.Sprintf("command %#x on a %v descriptor", req, k), err, unix.ENOTTY)
		}
	}
	// The same number with a size or a direction in it is another command.
	_, err := ioctlAt(m.vm.FD(), abi.IOCVMStop|8<<16|1<<30, 0)
	wantErr(t, "VM_STOP as _IOW", err, unix.ENOTTY)
}

// TestInfoOnOtherKinds asks for classes that a descriptor cannot answer.
func TestInfoOnOtherKinds(t *testing.T) {
	m := newMachine(t, withMem)
	for _, tt := range []struct {
		on   kind
		arg  []byte
		want error
	}{
		{onVM, payload(abi.InfoABI, bytesOf(abi.ABIInfo{})), nil},
		{onVCPU, payload(abi.InfoLimits, bytesOf(abi.LimitsInfo{})), nil},
		{onVM, payload(abi.InfoRunSize, bytesOf(abi.RunSizeInfo{})), nil},
		{onVCPU, payload(abi.InfoVM, bytesOf(abi.VMInfo{})), nil},
		{onDevice, payload(abi.InfoVM, bytesOf(abi.VMInfo{})), unix.EINVAL},
		{onDevice, payload(abi.InfoKVMExtension, bytesOf(abi.KVMExtensionInfo{})), unix.EINVAL},
		{onVCPU, payload(abi.InfoKVMExtension, bytesOf(abi.KVMExtensionInfo{})), unix.EINVAL},
	} {
		_, _, err := newArgument(t).ioctl(m.fd(tt.on), abi.IOCGetInfo, tt.arg)
		wantErr(t, fmt.Sprintf("class %d on a %v descriptor", tt.arg[4], tt.on), err, tt.want)
	}
	before := newMachine(t, created)
	_, err := before.vm.CheckExtension(abi.KVMCapIRQChip)
	wantErr(t, "KVM_EXTENSION before BIND", err, unix.EBUSY)
}
