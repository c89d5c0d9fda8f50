// SPDX-License-Identifier: Apache-2.0

package kerntest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"vmctl/abi"
	"vmctl/daemon/api"
	"vmctl/daemon/kern"
	"vmctl/daemon/vm"
)

// Machine is a VM descriptor of either kernel.
type Machine interface {
	Info() (abi.VMInfo, error)
	ConfigSet(c abi.VMConfigSet) error
	Pause(holder abi.Pause, deadline uint64) (abi.Paused, error)
	Resume(holder abi.Pause) error
	AttachDisk(parts ...abi.Part) (uint32, error)
	AttachNIC(parts ...abi.Part) (uint32, error)
	Detach(backend uint32) error
	Backend(from uint32) (abi.Backend, error)
	Stats() (abi.VMStats, error)
	VCPUStats(index uint32) (abi.VCPUStats, error)
	Bind() error
	Report(reason abi.Reason, data [4]uint64) error
	Stop() error
	Destroy() error
	Close() error
}

// Host is a kernel, fake or real.
type Host struct {
	Kernel *kern.Kernel
	Create func(id uuid.UUID, name string) (Machine, uint64, error)
	Open   func(id uint64, rights abi.Right) (Machine, error)
	// MakeVCPU makes a vCPU of a VM that the caller has bound.
	MakeVCPU func(m Machine, index uint32) error
	// GiveBack is called when all files of a backend that were taken are closed.
	GiveBack func(m Machine, backend uint32) error
}

// Conform holds what the fake promises to be like the module: it passes on both.
func Conform(t *testing.T, h Host) {
	for _, part := range []struct {
		name string
		run  func(*guinea)
	}{
		{"control", (*guinea).control}, {"refusals", (*guinea).refusals}, {"rights", (*guinea).rights},
		{"claims", (*guinea).claims}, {"draining", (*guinea).draining}, {"end", (*guinea).end},
	} {
		t.Run(part.name, func(t *testing.T) { part.run(&guinea{T: t, h: h}) })
	}
}

// guinea is one test on one host.
type guinea struct {
	*testing.T
	h Host
}

func (g *guinea) ok(err error) {
	g.Helper()
	if err != nil {
		g.Fatal(err)
	}
}

func (g *guinea) refused(what string, err, want error) {
	g.Helper()
	if !errors.Is(err, want) {
		g.Errorf("%s: %v, want %v", what, err, want)
	}
}

func (g *guinea) create() (Machine, uint64) {
	g.Helper()
	m, id, err := g.h.Create(uuid.New(), "guinea")
	g.ok(err)
	g.Cleanup(func() {
		if err := m.Destroy(); err != nil && !errors.Is(err, unix.ESHUTDOWN) {
			g.Error(err)
		}
		g.ok(m.Close())
	})
	return m, id
}

// open opens a file for one attach.
func (g *guinea) open(path string, flags int) abi.Part {
	g.Helper()
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	g.ok(err)
	return abi.Part{FD: fd, Role: abi.RoleData}
}

// attach attaches a disk, and keeps no descriptor of it.
func (g *guinea) attach(m Machine, path string, flags int) (uint32, error) {
	g.Helper()
	p := g.open(path, flags)
	defer unix.Close(p.FD)
	return m.AttachDisk(p)
}

func (g *guinea) disk() string {
	g.Helper()
	path := filepath.Join(g.TempDir(), "disk")
	g.ok(os.WriteFile(path, make([]byte, 4096), 0o600))
	return path
}

// watch returns the notices about one VM.
func (g *guinea) watch() func(id uint64) vm.Update {
	g.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	updates, done := make(chan vm.Update, 100), make(chan struct{})
	go func() {
		defer close(done)
		g.h.Kernel.Watch(ctx, updates)
	}()
	g.Cleanup(func() { cancel(); <-done })
	next := func() vm.Update {
		select {
		case u := <-updates:
			return u
		case <-time.After(10 * time.Second):
			g.Fatal("no notice came")
			return vm.Update{}
		}
	}
	if u := next(); u.Dump == nil {
		g.Fatalf("%+v, want a dump", u)
	}
	return func(id uint64) vm.Update {
		for {
			if u := next(); u.Lost != nil || u.Dump != nil {
				g.Fatalf("%+v", u)
			} else if u.Run.ID == id {
				return u
			}
		}
	}
}

// control: what who controls a VM does, and what is told of it.
func (g *guinea) control() {
	next := g.watch()
	m, id := g.create()
	path := g.disk()
	g.ok(m.ConfigSet(abi.VMConfigSet{MaxVCPUs: 1, MaxBackends: 1}))
	disk, err := g.attach(m, path, unix.O_RDWR)
	g.ok(err)
	_, err = g.attach(m, g.disk(), unix.O_RDWR)
	g.refused("one backend more than configured", err, unix.ENOSPC)
	for _, p := range []abi.Pause{abi.PauseOperator, abi.PauseSnapshot} {
		got, err := m.Pause(p, abi.Forever)
		g.ok(err)
		if got != (abi.Paused{}) {
			g.Errorf("pause: %+v", got)
		}
	}
	g.ok(m.Resume(abi.PauseOperator))
	g.ok(m.Resume(abi.PauseSnapshot))
	g.ok(m.Detach(disk))
	g.ok(m.Bind())
	g.ok(g.h.MakeVCPU(m, 0))
	g.refused("one vCPU more than configured", g.h.MakeVCPU(m, 1), unix.ENOSPC)
	s, err := m.Stats()
	g.ok(err)
	if s.Pauses != 1 || s.PausedNs == 0 || s.LimitHits != 2 || s.VCPUs != 1 || s.Backends != 0 {
		g.Errorf("stats: %+v", s)
	}
	g.ok(m.Report(abi.ReasonReset, [4]uint64{1, 2, 3, 4}))
	g.ok(m.Report(abi.ReasonPanic, [4]uint64{5, 6, 7, 8}))
	both := vm.HeldByOperator | vm.HeldBySnapshot
	for i, want := range []string{
		told(vm.NoticeOther, vm.RunCreated, 0, 0, "", ""),
		told(vm.NoticeOther, vm.RunCreated, 0, 0, "", ""), // configured
		told(vm.NoticeAttached, vm.RunCreated, 0, disk, "", ""),
		told(vm.NoticeLimit, vm.RunCreated, 0, 0, "backends", ""),
		told(vm.NoticePaused, vm.RunCreated, vm.HeldByOperator, 0, "", ""),
		told(vm.NoticePaused, vm.RunCreated, both, 0, "", ""),
		told(vm.NoticeResumed, vm.RunCreated, vm.HeldBySnapshot, 0, "", ""),
		told(vm.NoticeResumed, vm.RunCreated, 0, 0, "", ""),
		told(vm.NoticeDetached, vm.RunCreated, 0, disk, "", ""),
		told(vm.NoticeOther, vm.RunBound, 0, 0, "", ""),
		told(vm.NoticeLimit, vm.RunBound, 0, 0, "vcpus", ""),
		told(vm.NoticeReset, vm.RunBound, 0, 0, "", api.StopReset),
		told(vm.NoticeStopped, vm.RunStopped, 0, 0, "", api.StopPanic),
	} {
		u := next(id)
		if got := told(u.Kind, u.Run.State, u.Run.Paused, u.Backend, u.Limit, u.Run.Reason); got != want || u.Count != 1 {
			g.Errorf("notice %d: %s, want %s", i, got, want)
		}
	}
}

func told(kind vm.NoticeKind, state vm.RunState, paused vm.Holders, backend uint32, limit string, reason api.StopReason) string {
	return fmt.Sprintf("kind %d state %d paused %d backend %d limit %q reason %q", kind, state, paused, backend, limit, reason)
}

// refusals: what is not possible, and with which error.
func (g *guinea) refusals() {
	m, _ := g.create()
	_, err := m.Pause(abi.PauseAll, abi.Forever)
	g.refused("pause for two holders", err, unix.EINVAL)
	_, err = m.Pause(0, abi.Forever)
	g.refused("pause for none", err, unix.EINVAL)
	g.refused("resume of what is not paused", m.Resume(abi.PauseOperator), unix.EALREADY)
	g.refused("a limit above the host's", m.ConfigSet(abi.VMConfigSet{MaxVCPUs: 1 << 20}), unix.ENOSPC)
	g.refused("detach of nothing", m.Detach(1), unix.ENOENT)
	_, err = m.Backend(0)
	g.refused("backend before bind", err, unix.EBUSY)
	_, err = m.VCPUStats(0)
	g.refused("statistics of no vCPU", err, unix.ENOENT)
	null := g.open("/dev/null", unix.O_RDWR)
	defer unix.Close(null.FD)
	file := g.open(g.disk(), unix.O_RDWR)
	defer unix.Close(file.FD)
	_, err = m.AttachDisk(null)
	g.refused("a disk that is none", err, unix.EINVAL)
	_, err = m.AttachNIC(abi.Part{FD: file.FD, Role: abi.RoleTap})
	g.refused("a NIC that is none", err, unix.EINVAL)
	_, err = m.AttachDisk(abi.Part{FD: file.FD, Role: abi.RoleBase})
	g.refused("a disk without data", err, unix.EINVAL)
	_, err = m.AttachDisk()
	g.refused("a disk without files", err, unix.EINVAL)
	g.ok(m.Bind())
	g.refused("a second bind", m.Bind(), unix.EBUSY)
	g.refused("limits when bound", m.ConfigSet(abi.VMConfigSet{MaxVCPUs: 1}), unix.EBUSY)
	_, err = m.Backend(0)
	g.refused("backend of none", err, unix.ENOENT)
	g.ok(g.h.MakeVCPU(m, 0))
	g.refused("the same vCPU", g.h.MakeVCPU(m, 0), unix.EEXIST)
	g.ok(m.Stop())
	for what, err := range map[string]error{"stop": m.Stop(), "resume": m.Resume(abi.PauseOperator), "report": m.Report(abi.ReasonPanic, [4]uint64{}),
		"bind": m.Bind(), "config": m.ConfigSet(abi.VMConfigSet{}), "detach": m.Detach(1)} {
		g.refused(what+" of a stopped VM", err, unix.ESHUTDOWN)
	}
	_, err = m.Stats()
	g.ok(err)
	g.ok(m.Destroy())
	_, err = m.Stats()
	g.refused("statistics of a destroyed VM", err, unix.ESHUTDOWN)
	g.refused("destroy twice", m.Destroy(), unix.ESHUTDOWN)
	i, err := m.Info()
	g.ok(err)
	if i.State != abi.VMStateStopped || i.Reason != abi.ReasonOperator || i.Monitor != uint32(os.Getpid()) || i.VCPUs != 1 {
		g.Errorf("%+v", i)
	}
}

// rights: each command needs its own.
func (g *guinea) rights() {
	_, id := g.create()
	for _, right := range []abi.Right{abi.RightControl, abi.RightRun, abi.RightObserve} {
		m, err := g.h.Open(id, right)
		g.ok(err)
		_, err = m.Pause(abi.PauseOperator, abi.Forever)
		g.allowed(right, abi.RightControl, "pause", err)
		_, err = m.Stats()
		g.allowed(right, abi.RightObserve, "stats", err)
		g.allowed(right, abi.RightRun, "bind", m.Bind())
		g.ok(m.Close())
	}
}

func (g *guinea) allowed(has, needs abi.Right, what string, err error) {
	g.Helper()
	if has == needs {
		g.ok(err)
	} else if !errors.Is(err, unix.EACCES) {
		g.Errorf("%s with the right %v: %v", what, has, err)
	}
}

// claims: a disk has one writer or many readers.
func (g *guinea) claims() {
	a, _ := g.create()
	b, _ := g.create()
	path := g.disk()
	first, err := g.attach(a, path, unix.O_RDONLY)
	g.ok(err)
	second, err := g.attach(b, path, unix.O_RDONLY)
	g.ok(err)
	_, err = g.attach(a, path, unix.O_RDWR)
	g.refused("a writer beside readers", err, unix.EBUSY)
	g.ok(a.Detach(first))
	g.ok(b.Detach(second))
	_, err = g.attach(a, path, unix.O_RDWR)
	g.ok(err)
	_, err = g.attach(b, path, unix.O_RDONLY)
	g.refused("a reader beside a writer", err, unix.EBUSY)
	g.ok(a.Stop())
	_, err = g.attach(b, path, unix.O_RDWR)
	g.ok(err)
}

// draining: what the monitor has stays claimed.
func (g *guinea) draining() {
	next := g.watch()
	ctx := context.Background()
	m, id := g.create()
	other, _ := g.create()
	path := g.disk()
	disk, err := g.attach(m, path, unix.O_RDWR)
	g.ok(err)
	g.ok(m.Bind())
	got, err := m.Backend(0)
	g.ok(err)
	if got.Number != disk || got.Kind != abi.BackendDisk || len(got.Parts) != 1 || got.Parts[0].Role != abi.RoleData {
		g.Errorf("%+v", got)
	}
	var st unix.Stat_t
	g.ok(unix.Fstat(got.Parts[0].FD, &st))
	g.ok(m.Detach(disk))
	_, err = m.Backend(0)
	g.refused("what is draining", err, unix.ENOENT)
	g.refused("detach twice", m.Detach(disk), unix.ENOENT)
	_, err = g.attach(other, path, unix.O_RDWR)
	g.refused("what another still has", err, unix.EBUSY)
	all, err := g.h.Kernel.Backends(ctx, id)
	if err != nil || len(all) != 1 || all[0].State != abi.BackendStateDraining || all[0].Number != disk || !all[0].Writable ||
		all[0].Dev != st.Dev || all[0].Inode != st.Ino {
		g.Errorf("backends %+v %v", all, err)
	}
	g.ok(unix.Close(got.Parts[0].FD))
	g.ok(g.h.GiveBack(m, disk))
	for u := next(id); u.Kind != vm.NoticeDetached; u = next(id) {
	}
	_, err = g.attach(other, path, unix.O_RDWR)
	g.ok(err)
}

// end: what is left of a VM that was destroyed.
func (g *guinea) end() {
	ctx := context.Background()
	m, id := g.create()
	g.ok(m.Bind())
	g.ok(g.h.MakeVCPU(m, 3))
	_, err := m.Pause(abi.PauseOperator, abi.Forever)
	g.ok(err)
	cpus, err := g.h.Kernel.VCPUs(ctx, id)
	if err != nil || len(cpus) != 1 || cpus[0] != (kern.VCPU{Run: id, Index: 3, State: abi.VCPUStateFresh}) {
		g.Errorf("vCPUs %+v %v", cpus, err)
	}
	_, err = g.h.Kernel.Tomb(ctx, id)
	g.refused("tomb of a VM that is there", err, vm.ErrNoRun)
	before := time.Now()
	g.ok(m.Destroy())
	tomb, err := g.h.Kernel.Tomb(ctx, id)
	g.ok(err)
	if tomb.Ended.Before(before.Add(-time.Second)) || tomb.Ended.After(time.Now()) {
		g.Errorf("the tomb says that it ended at %v, want after %v", tomb.Ended, before)
	}
	if tomb.ID != id || tomb.Name != "guinea" || tomb.State != vm.RunStopped || tomb.Reason != api.StopDestroyed || tomb.Paused != 0 {
		g.Errorf("tomb %+v", tomb)
	}
	_, err = g.h.Open(id, abi.RightObserve)
	g.refused("open of a destroyed VM", err, unix.ENOENT)
	runs, _, err := g.h.Kernel.List(ctx)
	g.ok(err)
	for _, r := range runs {
		if r.ID == id {
			g.Errorf("still there: %+v", r)
		}
	}
}
