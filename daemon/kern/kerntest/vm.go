// SPDX-License-Identifier: Apache-2.0

package kerntest

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/abi"
	"vmctl/daemon/kern"
	"vmctl/daemon/vm"
)

const gatePoll = 5 * time.Millisecond

// VM is a VM descriptor, at the side that holds it. Its methods are those of
// abi.VM.
type VM struct {
	mu sync.Mutex
	c  *net.UnixConn // [mu] one request at a time
}

// NewVM takes over a descriptor that came by inheritance or over a socket.
func NewVM(f *os.File) (*VM, error) {
	c, err := fileConn(f)
	if err != nil {
		return nil, err
	}
	return &VM{c: c}, nil
}

func (v *VM) call(m message, files ...*os.File) (message, []*os.File, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := send(v.c, m, files...); err != nil {
		return message{}, nil, err
	}
	r, files, err := receive(v.c)
	if err == nil && r.Errno != 0 {
		err = r.Errno
	}
	return r, files, err
}

func (v *VM) do(m message) error {
	_, _, err := v.call(m)
	return err
}

// Info asks for the facts.
func (v *VM) Info() (abi.VMInfo, error) {
	r, _, err := v.call(message{Op: "info"})
	if err != nil {
		return abi.VMInfo{}, err
	}
	return *r.Info, nil
}

// ConfigSet lowers limits. Those of vCPUs and backends are known.
func (v *VM) ConfigSet(c abi.VMConfigSet) error { return v.do(message{Op: "config", Config: c}) }

// Pause shuts the gate. No vCPU is ever late, so the deadline does not matter.
func (v *VM) Pause(holder abi.Pause, _ uint64) (abi.Paused, error) {
	return abi.Paused{}, v.do(message{Op: "pause", Holder: holder})
}

// Resume opens the gate.
func (v *VM) Resume(holder abi.Pause) error { return v.do(message{Op: "resume", Holder: holder}) }

// Stop ends the VM.
func (v *VM) Stop() error { return v.do(message{Op: "stop"}) }

// Destroy takes the VM away.
func (v *VM) Destroy() error { return v.do(message{Op: "destroy"}) }

// AttachDisk attaches a disk.
func (v *VM) AttachDisk(parts ...abi.Part) (uint32, error) { return v.attach(abi.BackendDisk, parts) }

// AttachNIC attaches a network card.
func (v *VM) AttachNIC(parts ...abi.Part) (uint32, error) { return v.attach(abi.BackendNIC, parts) }

func (v *VM) attach(kind abi.BackendKind, parts []abi.Part) (uint32, error) {
	m := message{Op: "attach", Kind: kind}
	var fds []int
	for _, p := range parts {
		m.Roles = append(m.Roles, p.Role)
		fds = append(fds, p.FD)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := sendFDs(v.c, m, fds); err != nil {
		return 0, err
	}
	r, _, err := receive(v.c)
	if err == nil && r.Errno != 0 {
		err = r.Errno
	}
	return r.Backend, err
}

// Detach begins to detach a backend.
func (v *VM) Detach(backend uint32) error { return v.do(message{Op: "detach", Backend: backend}) }

// Backend takes the files of a backend. The fake does not see when they are
// closed: see GiveBack.
func (v *VM) Backend(from uint32) (abi.Backend, error) {
	r, files, err := v.call(message{Op: "backend", Backend: from})
	if err != nil {
		return abi.Backend{}, err
	}
	b := abi.Backend{Number: r.Backend, Kind: r.Kind}
	for i, f := range files {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		f.Close()
		if err != nil {
			return b, err
		}
		b.Parts = append(b.Parts, abi.Part{FD: fd, Role: r.Roles[i]})
	}
	return b, nil
}

// GiveBack says that the monitor has closed all files that it took of a backend.
func (v *VM) GiveBack(backend uint32) error { return v.do(message{Op: "giveBack", Backend: backend}) }

// Bind makes the holder the monitor.
func (v *VM) Bind() error { return v.do(message{Op: "bind", PID: uint32(os.Getpid())}) }

// MakeVCPU is VCPU_CREATE; there is no descriptor of a vCPU.
func (v *VM) MakeVCPU(index uint32) error { return v.do(message{Op: "vcpu", Index: index}) }

// Run is a VCPU_RUN of all vCPUs: the first makes the VM running. It waits at a
// shut gate.
func (v *VM) Run() error {
	for {
		err := v.do(message{Op: "run"})
		if !errors.Is(err, unix.EAGAIN) {
			return err
		}
		time.Sleep(gatePoll)
	}
}

// Report is VM_REPORT.
func (v *VM) Report(reason abi.Reason, data [4]uint64) error {
	return v.do(message{Op: "report", Reason: reason, Data: data})
}

// Stats asks what is counted of the VM.
func (v *VM) Stats() (abi.VMStats, error) {
	r, _, err := v.call(message{Op: "stats"})
	if err != nil {
		return abi.VMStats{}, err
	}
	return *r.Stats, nil
}

// VCPUStats asks what is counted of a vCPU.
func (v *VM) VCPUStats(index uint32) (abi.VCPUStats, error) {
	r, _, err := v.call(message{Op: "vcpu-stats", Index: index})
	if err != nil {
		return abi.VCPUStats{}, err
	}
	return *r.VCPU, nil
}

// Close closes the descriptor.
func (v *VM) Close() error { return v.c.Close() }

// handle is a descriptor as the daemon wants it.
type handle struct{ v *VM }

func (h handle) RunFile() (*os.File, error) {
	_, files, err := h.v.call(message{Op: "delegate", Rights: abi.RightRun | abi.RightObserve})
	if err != nil {
		return nil, err
	}
	return files[0], nil
}

func (h handle) Run() (vm.Run, error) {
	i, err := h.v.Info()
	if err != nil {
		return vm.Run{}, err
	}
	return kern.RunOf(i), nil
}

func (h handle) Stop() error {
	err := h.v.Stop()
	if errors.Is(err, unix.ESHUTDOWN) {
		return vm.ErrStopped
	}
	return err
}

// Detach takes a disk away.
func (h handle) Detach(disk uint32) error {
	if err := h.v.Detach(disk); !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

func (h handle) AttachDisk(file *os.File, backing ...*os.File) (uint32, error) {
	parts := []abi.Part{{FD: int(file.Fd()), Role: abi.RoleData}}
	for _, b := range backing {
		parts = append(parts, abi.Part{FD: int(b.Fd()), Role: abi.RoleBase})
	}
	n, err := h.v.AttachDisk(parts...)
	if errors.Is(err, unix.EBUSY) {
		return 0, vm.ErrDiskClaimed
	}
	return n, err
}

func (h handle) AttachNIC(tap, vhost *os.File) (uint32, error) {
	parts := []abi.Part{{FD: int(tap.Fd()), Role: abi.RoleTap}}
	if vhost != nil {
		parts = append(parts, abi.Part{FD: int(vhost.Fd()), Role: abi.RoleVhost})
	}
	return h.v.AttachNIC(parts...)
}

func (h handle) Pause(by vm.Holders, _ time.Duration) error {
	_, err := h.v.Pause(abi.Pause(by), 0)
	return err
}

func (h handle) Resume(by vm.Holders) error {
	if err := h.v.Resume(abi.Pause(by)); err != nil && !errors.Is(err, unix.EALREADY) {
		return err
	}
	return nil
}

func (h handle) Destroy() error {
	err := h.v.Destroy()
	if errors.Is(err, unix.ESHUTDOWN) {
		return nil
	}
	return err
}

func (h handle) Close() error { return h.v.Close() }
