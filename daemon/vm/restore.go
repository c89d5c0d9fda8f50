// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"errors"
	"time"

	"vmctl/daemon/api"
)

const attachTimeout = 5 * time.Second

// restore is the first thing that a machine does after the daemon started: it
// compares the record with the kernel and the monitor, which are right. report
// is told whether a running VM was adopted and whether the record was wrong.
func (m *machine) restore(seen sight, seq uint64, open []api.Task, report func(adopted, repaired bool)) {
	m.seq = seq
	m.tearing = true // nothing begins before this is done
	spec, p, saving := m.monitorSpec(), m.rec.Monitor, m.wasSaving(open)
	m.work(func() func() {
		h, mon, err := m.inv.find(m.ctx, seen.run, spec, p, saving)
		return func() {
			m.tearing = false
			if err != nil {
				m.log.Error("run not restored", "op", "restore", "err", err)
			}
			report(m.restored(seen, h, mon, open))
		}
	})
}

// find opens what is left of a VM; saving is whether it may have been about to be saved.
func (inv *Inventory) find(ctx context.Context, run *Run, spec MonitorSpec, p Process, saving bool) (Handle, Monitor, error) {
	var h Handle
	var errs []error
	if run != nil {
		var err error
		if h, err = inv.kernel.Open(run.ID); err != nil {
			h = nil
			errs = append(errs, err)
		}
	}
	if h != nil && run.State == RunRunning {
		// A monitor that is about to write all of a guest's memory ends that, and answers.
		if err := inv.outlive(h, spec.UUID, saving); err != nil {
			errs = append(errs, err)
		}
	}
	if err := inv.launcher.Sweep(spec, p); err != nil {
		errs = append(errs, err)
	}
	if p.PID == 0 {
		return h, nil, errors.Join(errs...)
	}
	ctx, cancel := context.WithTimeout(ctx, attachTimeout)
	defer cancel()
	mon, err := inv.launcher.Attach(ctx, spec, p)
	if err != nil {
		if !errors.Is(err, ErrMonitorGone) {
			errs = append(errs, err)
		}
		mon = nil
	}
	return h, mon, errors.Join(errs...)
}

func (m *machine) restored(seen sight, h Handle, mon Monitor, open []api.Task) (adopted, repaired bool) {
	run := seen.run
	before := m.rec.VM.Status
	m.handle, m.mon = h, mon
	if mon != nil {
		m.serves = true // it may
		m.idle.Reset(idleTime)
	}
	switch {
	case h != nil && run.State == RunRunning:
		if m.rec.VM.Status.Saved != nil {
			m.rec.VM.Status.Saved = nil
			m.commit("outlived", m.save)
		}
		m.adopt(run)
		m.resume(open, true)
		m.readjust()
		m.tidyDisk()
		m.tidyPlugs()
		return true, before.State != m.state()
	case h != nil: // begun and not running, or stopped meanwhile
		if m.rec.VM.Status.RunID == 0 {
			m.rec.VM.Status.RunID = run.ID
		}
		m.resume(open, false)
		m.teardown()
	case before.State != api.StateOff: // the kernel knows nothing of it any more
		m.resume(open, false)
		if before.State != api.StateStarting { // told already, or it went a moment ago
			m.commit("stopped", func(tx Tx) error { return m.endedUnseen(tx, seen.end(before.RunID).Run) })
		}
		m.teardown()
	default:
		m.resume(open, false)
		if m.active != nil && !isOfDisk(m.active.task.Kind) {
			m.finish(m.active.abort)
		}
		m.tidyDisk()
		if at := m.rec.VM.Status.RestartAt; at != nil {
			m.again.Reset(max(at.Sub(m.inv.now()), 0))
		}
		m.tidySaves()
		return false, false
	}
	return false, true
}

// endedUnseen takes in that the run ended while no daemon watched, once.
func (m *machine) endedUnseen(tx Tx, run Run) error {
	fresh, wasUp := m.note(run), m.up()
	if wasUp {
		m.setState(api.StateStopping)
	}
	err := m.saveStop(tx, fresh)
	if wasUp {
		err = errors.Join(err, m.save(tx))
	}
	return err
}

func (m *machine) adopt(run *Run) {
	m.running, m.paused, m.upSince = true, run.Paused != 0, m.inv.now()
	changed := m.state() != m.upState() || m.rec.VM.Status.RunID != run.ID
	m.rec.VM.Status.RunID = run.ID
	if changed {
		m.setState(m.upState())
		m.commit("adopt", m.save)
	}
}

// resume takes up the tasks that the last daemon left. Those that waited wait
// again. The one that ran is ended by what is true now, or begun again where
// that does no harm twice; nothing stays running for ever.
func (m *machine) resume(open []api.Task, running bool) {
	for _, t := range open {
		if t.State == api.TaskQueued || t.Kind == api.TaskDelete || t.Kind == api.TaskPowerOff && running ||
			t.Kind == api.TaskMerge && running && m.rec.Scrap == nil || m.isToCome(t) || m.isToLeave(t) {
			m.queue.Push(t)
			continue
		}
		ctx, cancel := context.WithCancel(m.ctx)
		m.active = &active{task: t, ctx: ctx, cancel: cancel, handed: true}
		switch {
		case t.Kind == api.TaskPowerOn && running:
			m.finish(nil)
		case t.Kind == api.TaskPowerOn:
			m.active.abort = &api.Error{Code: api.CodeUnavailable, Detail: "the daemon was restarted before the guest ran; the start was undone"}
		case t.Kind == api.TaskReset, t.Kind == api.TaskShutdown:
			m.finish(&api.Error{Code: api.CodeUnavailable, Detail: "the daemon was restarted; whether the guest was told is not known"})
		case t.Kind == api.TaskSave && !running && m.rec.VM.Status.Saved != nil:
			m.finish(nil) // all but the end was done
		case t.Kind == api.TaskSave:
			m.finish(&api.Error{Code: api.CodeUnavailable, Detail: "the daemon was restarted before the VM was saved"})
		case t.Kind == api.TaskSnapshot && m.rec.Scrap == nil:
			m.finish(&api.Error{Code: api.CodeUnavailable, Detail: "the daemon was restarted before the snapshot was begun"})
		case t.Kind == api.TaskMerge && m.rec.Scrap == nil:
			m.finish(&api.Error{Code: api.CodeStateConflict, Detail: "the VM stopped"})
		case (t.Kind == api.TaskPause || t.Kind == api.TaskResume) && running && m.paused == (t.Kind == api.TaskPause):
			m.finish(nil)
		case t.Kind == api.TaskPause, t.Kind == api.TaskResume:
			m.finish(&api.Error{Code: api.CodeUnavailable, Detail: "the daemon was restarted before the kernel was asked"})
		}
		// What a snapshot or a merge has begun with is ended by tidyDisk, and what is coming
		// by tidyPlugs; what leaves is waited for once more.
		if isDetach(t.Kind) && running {
			m.detach.Reset(detachTimeout)
		}
		// A powerOff whose VM does not run is done when the rest is cleared away.
	}
}
