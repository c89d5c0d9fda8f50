// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Of linux/kvm.h.
const (
	kvmDevice        = "/dev/kvm"
	kvmCreateVM      = 0xae01
	kvmCreateVCPU    = 0xae41
	kvmCreateIRQChip = 0xae60
)

// dropAnchor keeps plain VMs of KVM alive as long as the machine is, one of them
// with and one without interrupt chips. The first and the last VM of each kind make
// KVM patch the running kernel's code, the scheduler's too, and QEMU's emulation of
// several processors does not survive thousands of those: it executes a breakpoint
// that the kernel has taken away already. With an anchor nothing is patched, and
// the anchor itself is dropped while one processor alone is there. Where KVM is to
// come late, a command loads all modules itself: lab exec --no-module.
func dropAnchor() error {
	others, err := filepath.Glob("/sys/devices/system/cpu/cpu*/online")
	if err != nil || len(others) == 0 {
		return err // nothing else runs while code is patched
	}
	if err := setOnline(others, "0"); err != nil {
		return err
	}
	return errors.Join(createAnchor(), setOnline(others, "1"))
}

// setOnline takes processors away, or brings them back. The first one has no such
// file.
func setOnline(files []string, value string) error {
	for _, f := range files {
		if err := os.WriteFile(f, []byte(value), 0); err != nil {
			return err
		}
	}
	return nil
}

func createAnchor() error {
	dev, err := unix.Open(kvmDevice, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return os.NewSyscallError("open "+kvmDevice, err)
	}
	for _, chips := range []bool{false, true} {
		vm, err := kvmIoctl(dev, kvmCreateVM)
		if err != nil {
			return err
		}
		if chips {
			if _, err := kvmIoctl(vm, kvmCreateIRQChip); err != nil {
				return err
			}
		}
		if _, err := kvmIoctl(vm, kvmCreateVCPU); err != nil {
			return err
		}
	}
	return nil
}

// kvmIoctl makes a call without an argument, again when a signal of the Go runtime
// interrupts it.
func kvmIoctl(fd int, request uint) (int, error) {
	for {
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, fmt.Errorf("ioctl %#x of KVM: %w", request, errno)
		}
	}
}
