// SPDX-License-Identifier: Apache-2.0

package launchtest

import (
	"errors"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"vmctl/abi"
	"vmctl/daemon/kern/kerntest"
)

// runVM is a run descriptor: of the fake kernel, or of the real one.
type runVM interface {
	Bind() error
	// Run makes the VM running; it returns when a guest would.
	Run() error
	Report(reason abi.Reason, data [4]uint64) error
	Info() (abi.VMInfo, error)
	Backend(from uint32) (abi.Backend, error)
	// GiveBack says that all files of a backend are closed.
	GiveBack(backend uint32) error
}

// openVM takes over a run descriptor of either kernel.
func openVM(fd int) (runVM, error) {
	v := abi.NewVM(fd)
	if _, err := v.Info(); err == nil {
		return &realVM{VM: v}, nil
	}
	f, err := kerntest.NewVM(os.NewFile(uintptr(fd), "vm"))
	return fakeVM{f}, err
}

// fakeVM is a VM of the fake kernel with one vCPU.
type fakeVM struct{ *kerntest.VM }

func (v fakeVM) Bind() error {
	if err := v.VM.Bind(); err != nil {
		return err
	}
	return v.MakeVCPU(0)
}

// realVM is a VM of the module with one vCPU and no memory: a guest that comes
// back from its first instruction. It shows what needs the module and no guest.
type realVM struct {
	*abi.VM
	vcpu *abi.VCPU
}

func (v *realVM) Bind() error {
	if err := v.VM.Bind(); err != nil {
		return err
	}
	var err error
	v.vcpu, err = v.CreateVCPU(0)
	return err
}

// GiveBack does nothing: the module sees it.
func (v *realVM) GiveBack(uint32) error { return nil }

func (v *realVM) Run() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := v.vcpu.Run(); err != nil && !errors.Is(err, unix.EINTR) {
		return err
	}
	// Once more, to complete what it came back with: a monitor leaves nothing half done.
	if err := v.vcpu.MapRun(); err != nil {
		return err
	}
	v.vcpu.RunArea().ImmediateExit = 1
	if err := v.vcpu.Run(); err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ESHUTDOWN) {
		return err
	}
	return nil
}
