// SPDX-License-Identifier: Apache-2.0

package kern

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"vmctl/abi"
	"vmctl/daemon/api"
	"vmctl/daemon/vm"
)

// Kernel is the module vmm of this host. It is safe for concurrent use. The
// device is opened for each command that needs it: the module may come later
// than the daemon, and be loaded anew.
type Kernel struct {
	path string
	dial Dialer
}

// New returns the module behind the device at path.
func New(path string) *Kernel { return NewWith(path, Dial) }

// NewWith returns the module behind the device at path and the sockets of dial.
func NewWith(path string, dial Dialer) *Kernel { return &Kernel{path: path, dial: dial} }

// Create makes a kernel VM. errors.Is: vm.ErrRunExists, the numbers of vmm.h.
func (k *Kernel) Create(id, name string) (vm.Handle, uint64, error) {
	u, err := uuid.Parse(id)
	if err != nil {
		return nil, 0, &Error{Op: "vm-create", Err: err}
	}
	dev, err := abi.OpenDevice(k.path)
	if err != nil {
		return nil, 0, &Error{Op: "open " + k.path, Err: err}
	}
	defer dev.Close()
	v, number, err := dev.Create(u, name)
	switch {
	case errors.Is(err, unix.EEXIST):
		return nil, 0, vm.ErrRunExists
	case errors.Is(err, unix.ENOSPC):
		return nil, 0, &api.Error{Code: api.CodeLimitExceeded, Detail: "the kernel has its fill of VMs", Err: err}
	case err != nil:
		return nil, 0, &Error{Op: "vm-create", Err: err}
	}
	return &handle{vm: v, id: number}, number, nil
}

// Open opens a kernel VM by its number, with all rights. errors.Is: vm.ErrNoRun,
// unix.EPERM when another user made it.
func (k *Kernel) Open(id uint64) (vm.Handle, error) {
	dev, err := abi.OpenDevice(k.path)
	if err != nil {
		return nil, &Error{Op: "open " + k.path, VM: id, Err: err}
	}
	defer dev.Close()
	v, err := dev.Open(id, abi.RightAll)
	if errors.Is(err, unix.ENOENT) {
		return nil, vm.ErrNoRun
	}
	if err != nil {
		return nil, &Error{Op: "vm-open", VM: id, Err: err}
	}
	return &handle{vm: v, id: id}, nil
}

// Facts are what the module says of itself.
type Facts struct {
	ABI, MaxVMs, MaxVCPUs uint32
	KVM                   bool
	Instance              uint64 // random, one per load
}

// Facts asks the module about itself.
func (k *Kernel) Facts(ctx context.Context) (Facts, error) {
	dev, err := abi.OpenDevice(k.path)
	if err != nil {
		return Facts{}, &Error{Op: "open " + k.path, Err: err}
	}
	defer dev.Close()
	info, err := dev.ABIInfo()
	if err != nil {
		return Facts{}, &Error{Op: "get-info abi", Err: err}
	}
	limits, err := dev.Limits()
	if err != nil {
		return Facts{}, &Error{Op: "get-info limits", Err: err}
	}
	f := Facts{ABI: info.ABI, MaxVMs: limits.MaxVMs, MaxVCPUs: limits.MaxVCPUs, KVM: info.Capabilities&abi.CapKVM != 0}
	at, _, err := k.all(ctx)
	f.Instance = at.instance
	return f, err
}

// handle is a VM descriptor with all rights.
type handle struct {
	vm *abi.VM
	id uint64
}

// RunFile delegates what a monitor needs: run and observe.
func (h *handle) RunFile() (*os.File, error) {
	d, err := h.vm.Delegate(abi.RightRun | abi.RightObserve)
	if err != nil {
		return nil, &Error{Op: "vm-delegate", VM: h.id, Err: err}
	}
	defer d.Close()
	// The file owns a descriptor of its own; d's is closed here, so that the
	// monitor holds the last one in the end.
	fd, err := unix.FcntlInt(uintptr(d.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, &Error{Op: "dup run descriptor", VM: h.id, Err: err}
	}
	return os.NewFile(uintptr(fd), fmt.Sprintf("vm-%d", h.id)), nil
}

// Run asks for the facts.
func (h *handle) Run() (vm.Run, error) {
	info, err := h.vm.Info()
	if err != nil {
		return vm.Run{}, &Error{Op: "get-info vm", VM: h.id, Err: err}
	}
	return RunOf(info), nil
}

// Stop ends the VM. A signal that came while it waited for a vCPU changes
// nothing: the VM is stopped. errors.Is: vm.ErrStopped.
func (h *handle) Stop() error {
	err := h.vm.Stop()
	switch {
	case err == nil, errors.Is(err, unix.EINTR):
		return nil
	case errors.Is(err, unix.ESHUTDOWN):
		return vm.ErrStopped
	}
	return &Error{Op: "vm-stop", VM: h.id, Err: err}
}

// AttachDisk gives the VM a disk. errors.Is: vm.ErrDiskClaimed.
func (h *handle) AttachDisk(file *os.File, backing ...*os.File) (uint32, error) {
	parts := []abi.Part{{FD: int(file.Fd()), Role: abi.RoleData}}
	for _, b := range backing {
		parts = append(parts, abi.Part{FD: int(b.Fd()), Role: abi.RoleBase})
	}
	n, err := h.vm.AttachDisk(parts...)
	switch {
	case errors.Is(err, unix.EBUSY):
		return 0, vm.ErrDiskClaimed
	case err != nil:
		return 0, &Error{Op: "vm-attach-disk", VM: h.id, Err: err}
	}
	return n, nil
}

// Detach takes a backend away; one that is away is no error.
func (h *handle) Detach(backend uint32) error {
	if err := h.vm.Detach(backend); err != nil && !errors.Is(err, unix.ENOENT) {
		return &Error{Op: "vm-detach", VM: h.id, Err: err}
	}
	return nil
}

// AttachNIC gives the VM a network card.
func (h *handle) AttachNIC(tap, vhost *os.File) (uint32, error) {
	parts := []abi.Part{{FD: int(tap.Fd()), Role: abi.RoleTap}}
	if vhost != nil {
		parts = append(parts, abi.Part{FD: int(vhost.Fd()), Role: abi.RoleVhost})
	}
	n, err := h.vm.AttachNIC(parts...)
	if err != nil {
		return 0, &Error{Op: "vm-attach-nic", VM: h.id, Err: err}
	}
	return n, nil
}

// unsettledPace is how long a monitor has to complete an exit before it is looked at
// again: the kernel tells nobody when it has.
const unsettledPace = time.Millisecond

// Pause shuts the gate for a holder. For a snapshot no exit is half done, either.
func (h *handle) Pause(by vm.Holders, timeout time.Duration) error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return os.NewSyscallError("clock_gettime", err)
	}
	deadline, end := uint64(now.Nano()+timeout.Nanoseconds()), time.Now().Add(timeout)
	for {
		p, err := h.vm.Pause(abi.Pause(by), deadline)
		switch {
		case err == nil && (by != vm.HeldBySnapshot || p.Unsettled == 0):
			return nil
		case err == nil:
			if time.Now().After(end) {
				return &api.Error{Code: api.CodeKernelFailed, Detail: "the monitor did not complete an exit in time"}
			}
			time.Sleep(unsettledPace)
		case errors.Is(err, unix.EINTR): // of a signal to the daemon
		case errors.Is(err, unix.ETIMEDOUT):
			return &api.Error{Code: api.CodeKernelFailed, Err: err,
				Detail: "a vCPU's thread was not out of the guest in time; the gate is shut, and it will stay out from then on"}
		default:
			return &Error{Op: "vm-pause", VM: h.id, Err: err}
		}
	}
}

// Resume ends a holder's pause.
func (h *handle) Resume(by vm.Holders) error {
	if err := h.vm.Resume(abi.Pause(by)); err != nil && !errors.Is(err, unix.EALREADY) {
		return &Error{Op: "vm-resume", VM: h.id, Err: err}
	}
	return nil
}

// Destroy takes the VM out of the inventory; one that is out is no error.
func (h *handle) Destroy() error {
	err := h.vm.Destroy()
	if err == nil || errors.Is(err, unix.EINTR) || errors.Is(err, unix.ESHUTDOWN) {
		return nil
	}
	return &Error{Op: "vm-destroy", VM: h.id, Err: err}
}

// Close closes the descriptor.
func (h *handle) Close() error { return h.vm.Close() }
