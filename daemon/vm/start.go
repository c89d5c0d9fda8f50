// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"errors"
	"time"

	"vmctl/daemon/api"
)

// Times of a start and of what is asked of a VM that is up.
const (
	spawnTimeout     = 20 * time.Second // a monitor enters its jail and says hello
	configureTimeout = 60 * time.Second // it reads kernel and initrd
	runTimeout       = 30 * time.Second // from its start to the kernel's word
	callTimeout      = 10 * time.Second // of reset and power button
	pauseTimeout     = 10 * time.Second // until every vCPU's thread is out of the guest
)

// beginStart is powerOn: files, kernel VM, monitor, descriptor, start, and the
// kernel's word that the guest runs. Each step hands on to the next; when
// one fails, or the start is aborted, abandon undoes all.
func (m *machine) beginStart() {
	m.forgetPlan()
	if m.rec.VM.Status.Saved == nil {
		m.rec.Plugged = nil
	} else if p := m.plugged(); m.rec.Plugged != nil {
		p.Taps = len(p.NICs)
		m.rec.Plugged = &p
	}
	m.setState(api.StateStarting)
	m.running, m.paused, m.resets, m.noted = false, false, 0, 0
	m.progress(0, true)
	m.step(func(context.Context) func() {
		files, handle, id, err := m.inv.createRun(m.rec)
		return func() { m.created(files, handle, id, err) }
	})
}

// step runs one step of the active task. Its answer comes while the task is
// still the active one: abandon waits for it.
func (m *machine) step(fn func(ctx context.Context) func()) {
	a := m.active
	a.busy = true
	m.work(func() func() {
		next := fn(a.ctx)
		return func() {
			a.busy = false
			next()
		}
	})
}

// createRun opens the files and makes the kernel VM. One that has the uuid
// already is left from a run whose end was not recorded: it is destroyed.
func (inv *Inventory) createRun(rec Record) (*Files, Handle, uint64, error) {
	files, err := inv.openFiles(rec.VM.Spec)
	if err == nil && rec.VM.Status.Saved != nil {
		files.Saved, err = inv.saves.open(rec.VM.ID)
	}
	if err != nil {
		files.Close()
		return nil, nil, 0, err
	}
	if files.seed, err = inv.openSeed(rec.VM); err != nil {
		files.Close()
		return nil, nil, 0, err
	}
	h, id, err := inv.kernel.Create(rec.VM.ID, rec.VM.Name)
	if errors.Is(err, ErrRunExists) {
		if err = inv.destroyStale(rec.VM.ID); err == nil {
			h, id, err = inv.kernel.Create(rec.VM.ID, rec.VM.Name)
		}
	}
	if err != nil {
		files.Close()
		return nil, nil, 0, coded(api.CodeKernelFailed, "vm-create", err)
	}
	return files, h, id, nil
}

func (inv *Inventory) destroyStale(uuid string) error {
	runs, _, err := inv.kernel.List(inv.ctx)
	if err != nil {
		return err
	}
	for _, r := range runs {
		if r.UUID != uuid {
			continue
		}
		h, err := inv.kernel.Open(r.ID)
		if err != nil {
			return err
		}
		return errors.Join(h.Destroy(), h.Close())
	}
	return nil
}

func (m *machine) created(files *Files, h Handle, id uint64, err error) {
	if err != nil {
		m.abandon(err)
		return
	}
	m.handle = h
	m.rec.VM.Status.RunID = id
	if m.aborted() {
		files.Close()
		m.abandon(nil)
		return
	}
	m.progress(10, true)
	m.active.busy = true
	m.withMonitor(func(err error) {
		m.active.busy = false
		if err != nil || m.aborted() {
			files.Close()
			m.abandon(err)
			return
		}
		m.configure(files)
	})
}

func (m *machine) configure(files *Files) {
	m.active.handed = true
	m.progress(40, false)
	mon, h, rec := m.mon, m.handle, m.rec
	m.step(func(ctx context.Context) func() {
		used, err := m.inv.configureRun(ctx, mon, h, rec, files)
		return func() { m.configured(used, err) }
	})
}

// configureRun hands backends and the run descriptor over and keeps no copy of it: closing
// the last one is how the kernel learns that the monitor is gone. used says that what the
// VM was saved to is no more: its disks are others as soon as the guest runs.
func (inv *Inventory) configureRun(ctx context.Context, mon Monitor, h Handle, rec Record, files *Files) (used bool, err error) {
	defer files.Close()
	spec := rec.VM.Spec
	backends, err := inv.attach(ctx, h, rec.VM.Status.RunID, spec, files)
	if err != nil {
		return false, err
	}
	backends.Numbers = rec.plugged()
	ctx, cancel := context.WithTimeout(ctx, configureTimeout)
	defer cancel()
	run, err := h.RunFile()
	if err != nil {
		return false, coded(api.CodeKernelFailed, "vm-delegate", err)
	}
	err = mon.Configure(ctx, spec, backends, run, files)
	run.Close()
	if err == nil { // a save has the target of its time
		err = mon.SetBalloon(ctx, spec.BalloonBytes)
	}
	if err != nil {
		return false, coded(api.CodeMonitorFailed, "configure", err)
	}
	if files.Saved != nil {
		if err := inv.saves.remove(rec.VM.ID); err != nil {
			return false, coded(api.CodeInternal, "restore", err)
		}
	}
	return files.Saved != nil, coded(api.CodeMonitorFailed, "start", mon.Start(ctx))
}

func (m *machine) configured(used bool, err error) {
	if used {
		m.rec.VM.Status.Saved = nil
	}
	if err != nil || m.aborted() {
		m.abandon(err)
		return
	}
	m.active.configured = true
	if m.running {
		m.started()
		return
	}
	m.deadline.Reset(runTimeout)
}

// started ends a powerOn: the kernel has seen the guest run.
func (m *machine) started() {
	m.upSince = m.inv.now()
	m.setState(m.upState())
	t := m.endTask(nil)
	m.commit("started", func(tx Tx) error {
		return errors.Join(m.save(tx), m.putTask(tx, t), m.putQueue(tx))
	})
	m.inv.board.Ended(t.ID)
}

func (m *machine) aborted() bool { return m.active.abort != nil || m.active.lost != nil }

// abortStart ends the active powerOn with cause: at once, or as soon as its
// worker, whose context is cancelled, has answered.
func (m *machine) abortStart(cause error) {
	a := m.active
	if a == nil || a.task.Kind != api.TaskPowerOn || a.abort != nil {
		return
	}
	a.abort = cause
	a.cancel()
	if !a.busy {
		m.abandon(nil)
	}
}

// loseStart ends the active powerOn because its run or monitor ended. A worker
// that still speaks to the monitor may have a better reason: it is waited for.
func (m *machine) loseStart(cause error) {
	a := m.active
	if a.lost == nil {
		a.lost = cause
	}
	if !a.busy && !m.tearing {
		m.abandon(nil)
	}
}

// abandon undoes a start. What it was aborted with says more than the error
// that followed from it. The task ends with the state off: see torn.
func (m *machine) abandon(err error) {
	a := m.active
	for _, cause := range []error{err, a.lost} {
		if a.abort == nil {
			a.abort = cause
		}
	}
	m.teardown()
}

// beginCall is a task that one call of the monitor does.
func (m *machine) beginCall(op string, call func(Monitor, context.Context) error) {
	m.progress(0, false)
	mon := m.mon
	if mon == nil || m.deaf {
		m.finish(&api.Error{Code: api.CodeMonitorFailed, Detail: "no connection to the monitor"})
		return
	}
	m.step(func(ctx context.Context) func() {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		err := coded(api.CodeMonitorFailed, op, call(mon, ctx))
		return func() { m.finish(err) }
	})
}

// beginGate is pause or resume. The monitor has no part in it, and the state follows
// the kernel's word, after which the task ends: see gateEnds.
func (m *machine) beginGate(op string, call func(Handle) error) {
	m.progress(0, false)
	h := m.handle
	if h == nil {
		m.finish(&api.Error{Code: api.CodeKernelFailed, Detail: "no descriptor of the run"})
		return
	}
	m.step(func(context.Context) func() {
		err := coded(api.CodeKernelFailed, op, call(h))
		return func() {
			if err != nil {
				m.finish(err)
				return
			}
			m.active.configured = true
			m.gateEnds()
		}
	})
}

// resume ends the operator's pause. What another holder keeps shut stays shut, and
// nothing would ever say otherwise.
func resume(h Handle) error {
	if err := h.Resume(HeldByOperator); err != nil {
		return err
	}
	run, err := h.Run()
	if err == nil && run.Paused != 0 {
		return &api.Error{Code: api.CodeStateConflict, Detail: "a snapshot keeps the VM paused"}
	}
	return err
}

// gateEnds ends a pause or resume when all is as it asked for.
func (m *machine) gateEnds() {
	a := m.active
	if a == nil || !a.configured || a.task.Kind != api.TaskPause && a.task.Kind != api.TaskResume {
		return
	}
	if m.up() && m.paused == (a.task.Kind == api.TaskPause) {
		m.finish(nil)
	}
}
