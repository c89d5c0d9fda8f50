// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"vmctl/daemon/api"
	"vmctl/daemon/task"
)

// kindOf is the kind of task that a verb becomes.
func kindOf(v api.Verb) api.TaskKind { return api.TaskKind("vm." + string(v)) }

// target is what of a VM a verb is for; zero: for all of it.
type target struct {
	disk   *int
	device *api.Device // that comes or goes
}

// ask takes a request in, or says at once why not. What was taken in is durable.
func (m *machine) ask(ctx context.Context, verb api.Verb, of target, generation int64) (api.Task, error) {
	if m.closing || m.deleted {
		return api.Task{}, errGone(m)
	}
	if generation != 0 && generation != m.rec.VM.Generation {
		return api.Task{}, &api.Error{Code: api.CodePreconditionFailed, Detail: fmt.Sprintf("the VM has generation %d", m.rec.VM.Generation)}
	}
	if err := m.admit(verb, of); err != nil {
		return api.Task{}, err
	}
	t := api.Task{ID: uuid.NewString(), Kind: kindOf(verb), VM: m.ref(), Disk: of.disk, Device: of.device, State: api.TaskQueued,
		QueuePosition: m.ahead() + m.queue.Len(), CreatedAt: m.inv.now()}
	if o := task.OriginOf(ctx); o != nil {
		t.Actor, t.RequestID = o.Actor, o.RequestID
	}
	err := m.inv.store.Update(context.WithoutCancel(ctx), func(tx Tx) error {
		return errors.Join(tx.PutTask(t), tx.Event(api.EventTaskChanged, m.ref(), t), tx.Answer(api.TaskAccepted{Task: t}))
	})
	if err != nil {
		return api.Task{}, err
	}
	m.queue.Push(t)
	return t, nil
}

// admit is the check of a verb against the state and what is queued.
func (m *machine) admit(verb api.Verb, of target) error {
	conflict := func(format string, args ...any) error {
		return &api.Error{Code: api.CodeStateConflict, Detail: fmt.Sprintf(format, args...)}
	}
	if verb == api.VerbMerge && m.state() == api.StateOff {
		return conflict("the monitor merges, and the VM is off: power it on first")
	}
	if !slices.Contains(m.rec.VM.Status.Allowed, verb) {
		return conflict("%s is not possible while the VM is %s", verb, m.state())
	}
	if m.queue.Full() {
		return &api.Error{Code: api.CodeLimitExceeded, Detail: fmt.Sprintf("%d tasks of this VM wait already", task.MaxQueued)}
	}
	// One of a kind: what waits already will do what this one asks for. Only
	// resets add up.
	if verb != api.VerbReset && m.asked(kindOf(verb), of) {
		return conflict("%s is queued already", verb)
	}
	if m.queue.Has(api.TaskDelete) || m.activeKind() == api.TaskDelete {
		return conflict("the VM is being deleted")
	}
	if verb == api.VerbDelete && m.queue.Len() > 0 {
		return conflict("tasks of this VM wait")
	}
	if verb == api.VerbSave && m.moving() {
		return errMoving()
	}
	if verb == api.VerbPowerOn {
		return m.inv.check(m.rec.VM.Spec)
	}
	if of.disk != nil {
		return m.admitDisk(verb, *of.disk)
	}
	if of.device != nil {
		return m.admitDevice(kindOf(verb), *of.device)
	}
	return nil
}

// asked reports whether a task of that kind, and for that, waits or runs.
func (m *machine) asked(kind api.TaskKind, of target) bool {
	is := func(t api.Task) bool {
		return t.Kind == kind && (of.disk == nil || t.Disk == nil || *t.Disk == *of.disk) &&
			(of.device == nil || t.Device == nil || sameDevice(*t.Device, *of.device))
	}
	return m.queue.Any(is) || m.active != nil && is(m.active.task)
}

func (m *machine) activeKind() api.TaskKind {
	if m.active == nil {
		return ""
	}
	return m.active.task.Kind
}

func (m *machine) ahead() int {
	if m.active == nil {
		return 0
	}
	return 1
}

// next begins the oldest task when nothing runs. A powerOff does not wait for
// a start, a save, a merge or a guest that is to let go of a device: it ends that.
func (m *machine) next() {
	m.sweep()
	if m.active != nil {
		if m.active.task.Kind == api.TaskPowerOn && m.active.abort == nil && m.queue.Has(api.TaskPowerOff) {
			m.abortStart(&api.Error{Code: api.CodeStateConflict, Detail: "powered off before the guest ran"})
		}
		if m.queue.Has(api.TaskPowerOff) {
			m.abortSave(&api.Error{Code: api.CodeStateConflict, Detail: "powered off before the VM was saved"})
			m.abortMerge(&api.Error{Code: api.CodeStateConflict, Detail: "powered off before the disk was merged"})
			m.abortDevice(&api.Error{Code: api.CodeStateConflict, Detail: "powered off before the device had come or gone"})
		}
		if m.active != nil {
			return
		}
	}
	if m.tearing || m.settling || m.changing {
		return
	}
	t, ok := m.queue.Pop()
	if !ok {
		return
	}
	now := m.inv.now()
	t.State, t.StartedAt, t.QueuePosition = api.TaskRunning, &now, 0
	ctx, cancel := context.WithCancel(m.ctx)
	m.active = &active{task: t, ctx: ctx, cancel: cancel}
	m.begin()
}

// begin does the first step of the active task, or ends it at once.
func (m *machine) begin() {
	kind, state := m.active.task.Kind, m.state()
	switch {
	case kind == api.TaskPowerOn && state == api.StateOff:
		m.beginStart()
	case kind == api.TaskPowerOff && m.up():
		m.setState(api.StateStopping)
		m.progress(0, true)
		m.teardown()
	case kind == api.TaskPowerOff && state == api.StateOff:
		m.forgetPlan()
		m.progress(0, true)
		if m.rec.VM.Status.Saved != nil {
			m.dropSave(nil)
			return
		}
		m.finish(nil)
	case kind == api.TaskReset && state == api.StateRunning:
		m.beginCall("reset", Monitor.Reset)
	case kind == api.TaskShutdown && state == api.StateRunning:
		m.beginCall("power-button", Monitor.PowerButton)
	case kind == api.TaskPause && state == api.StateRunning:
		m.beginGate("vm-pause", func(h Handle) error { return h.Pause(HeldByOperator, pauseTimeout) })
	case kind == api.TaskResume && state == api.StatePaused:
		m.beginGate("vm-resume", resume)
	case kind == api.TaskSave && state == api.StateRunning:
		m.beginSave()
	case kind == api.TaskSnapshot && (m.up() || state == api.StateOff && m.rec.VM.Status.Saved == nil):
		m.beginSnapshot()
	case kind == api.TaskMerge && m.up():
		m.beginMerge()
	case isAttach(kind) && (m.up() || state == api.StateOff && m.rec.VM.Status.Saved == nil):
		m.beginAttach()
	case isDetach(kind) && (state == api.StateRunning || state == api.StateOff && m.rec.VM.Status.Saved == nil):
		m.beginDetach()
	case kind == api.TaskDelete && state == api.StateOff:
		m.beginDelete()
	default:
		m.finish(&api.Error{Code: api.CodeStateConflict, Detail: fmt.Sprintf("the VM is %s", state)})
	}
}

// progress tells that the active task goes on and where those that wait stand
// now, together with the state when that changed.
func (m *machine) progress(percent int, changed bool) {
	m.active.task.Progress = percent
	m.commit("progress", func(tx Tx) error {
		var err error
		if changed {
			err = m.save(tx)
		}
		return errors.Join(err, m.putTask(tx, m.active.task), m.putQueue(tx))
	})
}

func (m *machine) putTask(tx Tx, t api.Task) error {
	return errors.Join(tx.PutTask(t), tx.Event(api.EventTaskChanged, m.ref(), t))
}

func (m *machine) putQueue(tx Tx) error {
	for _, t := range m.queue.Renumber(m.ahead()) {
		if err := m.putTask(tx, t); err != nil {
			return err
		}
	}
	return nil
}

// finish ends the active task. err nil is success.
func (m *machine) finish(err error) {
	t := m.endTask(err)
	m.commit("finish "+string(t.Kind), func(tx Tx) error {
		return errors.Join(m.putTask(tx, t), m.putQueue(tx))
	})
	m.inv.board.Ended(t.ID)
}

// endTask takes the active task away and returns it as it ended.
func (m *machine) endTask(err error) api.Task {
	a := m.active
	m.active = nil
	a.cancel()
	now := m.inv.now()
	a.task.EndedAt = &now
	if err == nil {
		a.task.State, a.task.Progress = api.TaskSucceeded, 100
		return a.task
	}
	e := asAPI(err)
	a.task.State = api.TaskFailed
	a.task.Error = &api.TaskError{Code: e.Code, Detail: e.Detail}
	m.log.Warn("task failed", "op", string(a.task.Kind), "task", a.task.ID, "err", err)
	return a.task
}

// asAPI finds the error that a caller may see. What is none is an internal one.
func asAPI(err error) *api.Error {
	var e *api.Error
	if errors.As(err, &e) {
		return e
	}
	return &api.Error{Code: api.CodeInternal, Detail: "an internal error; the log has it", Err: err}
}

// coded gives an error without a code one; its text goes to the caller, since
// it names a command and an error number.
func coded(code api.Code, op string, err error) error {
	var e *api.Error
	if err == nil || errors.As(err, &e) {
		return err
	}
	return &api.Error{Code: code, Detail: op + ": " + err.Error(), Err: err}
}
