// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"errors"
	"slices"
	"time"

	"vmctl/daemon/api"
)

// saveTimeout is for the monitor to write all of a guest's memory.
const saveTimeout = time.Hour

// beginSave shuts the gate, has the monitor write the machine, makes that durable, and
// ends the run as powerOff does. When anything of it fails the gate is opened again,
// and nothing was. The guest runs no instruction between what is saved and the end.
func (m *machine) beginSave() {
	m.progress(0, false)
	mon, h, id := m.mon, m.handle, m.rec.VM.ID
	if mon == nil || m.deaf || h == nil {
		m.finish(&api.Error{Code: api.CodeMonitorFailed, Detail: "no connection to the monitor"})
		return
	}
	if m.moving() {
		m.finish(errMoving())
		return
	}
	m.step(func(ctx context.Context) func() {
		room, err := m.inv.saveRun(ctx, h, mon, id)
		return func() { m.wasSaved(h, room, err) }
	})
}

func (inv *Inventory) saveRun(ctx context.Context, h Handle, mon Monitor, id string) (room int64, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, h.Resume(HeldBySnapshot), inv.saves.remove(id))
		}
	}()
	if err := h.Pause(HeldBySnapshot, pauseTimeout); err != nil {
		return 0, coded(api.CodeKernelFailed, "vm-pause", err)
	}
	files, err := inv.saves.create(id)
	if err != nil {
		return 0, coded(api.CodeSaveFailed, "save", err)
	}
	defer files.Close()
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	if err := mon.Save(ctx, files); err != nil {
		return 0, coded(api.CodeSaveFailed, "save", err)
	}
	room, err = inv.saves.keep(id, files)
	return room, coded(api.CodeSaveFailed, "save", err)
}

// wasSaved ends the run that was saved: h is of it. A powerOff that came too late to
// abort it forgets the save.
func (m *machine) wasSaved(h Handle, room int64, err error) {
	switch {
	case err != nil && m.active.abort != nil:
		m.finish(m.active.abort)
		return
	case err != nil:
		m.finish(err)
		return
	case m.handle != h:
		// It ended by itself meanwhile, and was told so.
		m.dropSave(&api.Error{Code: api.CodeStateConflict, Detail: "the VM stopped"})
		return
	}
	m.rec.VM.Status.Saved = &api.Saved{At: m.inv.now(), Bytes: room}
	m.setState(api.StateStopping)
	m.progress(90, true)
	m.teardown()
}

// abortSave ends the active save: a powerOff waits, which needs none.
func (m *machine) abortSave(cause error) {
	if a := m.active; a.task.Kind == api.TaskSave && a.abort == nil && a.busy {
		a.abort = cause
		a.cancel()
	}
}

// dropSave removes what a VM was saved to, and ends the active task with an outcome.
func (m *machine) dropSave(outcome error) {
	id := m.rec.VM.ID
	m.step(func(context.Context) func() {
		err := m.inv.saves.remove(id)
		return func() {
			if err == nil && m.rec.VM.Status.Saved != nil {
				m.rec.VM.Status.Saved, m.rec.Plugged = nil, nil
				m.setState(m.state())
				m.commit("forget save", m.save)
			}
			if outcome == nil {
				outcome = coded(api.CodeInternal, "forget", err)
			}
			m.finish(outcome)
		}
	})
}

// tidySaves removes what a save that was not recorded left of a VM that is off.
func (m *machine) tidySaves() {
	if m.rec.VM.Status.Saved != nil {
		return
	}
	id := m.rec.VM.ID
	m.tearing = true // nothing begins before
	m.work(func() func() {
		err := m.inv.saves.remove(id)
		return func() {
			m.tearing = false
			if err != nil {
				m.log.Error("save not removed", "op", "restore", "err", err)
			}
		}
	})
}

// wasSaving reports whether an earlier daemon was about to save a VM, and may have shut
// its gate: the task is open, or all but its end was done.
func (m *machine) wasSaving(open []api.Task) bool {
	return m.rec.VM.Status.Saved != nil || slices.ContainsFunc(open, func(t api.Task) bool {
		return t.Kind == api.TaskSave && t.State == api.TaskRunning
	})
}

// outlive is for a run that an earlier daemon was about to save, or to restore: it goes
// on, and what it was saved to is of the past. A gate that others keep shut stays so.
// All is done before any of it is recorded, or the next daemon would not know of it.
func (inv *Inventory) outlive(h Handle, id string, saving bool) error {
	err := inv.saves.remove(id)
	if saving {
		err = errors.Join(err, h.Resume(HeldBySnapshot))
	}
	return err
}
