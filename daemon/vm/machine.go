// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"vmctl/daemon/api"
	"vmctl/daemon/task"
)

// machine is one VM. Its goroutine, loop, owns every field below "owned" and is
// the only one that changes the state:
//
//	        powerOn               kernel: running     pause, kernel: paused
//	off ---------------> starting -----------------> running ----------------> paused
//	 ^                      |                       ^  | |  <---------------     |
//	 |                      | a step fails,         +--+ |   resume, kernel:     |
//	 |                      | powerOff,           reset   |   resumed             |
//	 |                      | kernel: stopped             |                       |
//	 |                      |                             | powerOff, or the      |
//	 |                      v                             v kernel: stopped       |
//	 +------------------- stopping <----------------------+-----------------------+
//	  run destroyed,
//	  monitor reaped
//
// Nothing here waits. What takes time (system calls, the monitor's answers, a
// process that ends) is done by work, in a goroutine that sends back a function
// for the loop. A step that failed leads to stopping, which undoes whatever was
// done: one way out of everything.
type machine struct {
	inv   *Inventory
	inbox chan func()
	done  chan struct{} // closed when loop has ended

	// owned
	rec      Record
	queue    task.Queue
	active   *active
	handle   Handle // of the run; nil without one
	mon      Monitor
	pending  int // workers whose answer is due
	closing  bool
	deleted  bool
	tearing  bool // a worker undoes the run
	changing bool // a worker tells the monitor of a change
	running  bool // the kernel said so of this run
	paused   bool // likewise
	resets   uint64
	noted    uint64 // run whose end is in LastStop
	seq      uint64 // of the last notice
	spawning bool
	needMon  []func(error) // wait for the monitor
	deadline *time.Timer   // of starting
	idle     *time.Timer   // of a monitor that serves consoles alone
	reattach *time.Timer   // of a connection that was lost
	again    *time.Timer   // of a start by policy
	untidy   *time.Timer   // of a disk that could not be settled
	settling bool          // a worker does that, or settles what was plugged
	detach   *time.Timer   // of a guest that was asked to let go of a device
	letGo    bool          // it may have
	upSince  time.Time     // that the guest is known to run
	deaf     bool          // the connection to the monitor is lost
	dead     bool          // the monitor is gone, and a worker still holds it
	serves   bool          // a console token was given out for the monitor
	ctx      context.Context
	log      *slog.Logger
}

// active is the task that is being done.
type active struct {
	task       api.Task
	ctx        context.Context
	cancel     context.CancelFunc
	abort      error // why it must end; the worker that runs is waited for
	lost       error // powerOn: its run or monitor ended
	busy       bool  // a worker of it runs
	handed     bool  // powerOn: the monitor has the run
	configured bool  // powerOn, pause, resume: all is done but the kernel's word
	overdue    bool  // detachDisk, detachNic: the guest had its time
}

// allowed is the table of verbs and states; the interface shows it as it is.
func allowed(s api.VMStatus) []api.Verb {
	switch s.State {
	case api.StateOff:
		verbs := []api.Verb{api.VerbPowerOn}
		if s.RestartAt != nil || s.Saved != nil { // it stays off, and begins anew
			verbs = append(verbs, api.VerbPowerOff)
		}
		if s.Saved == nil { // whose guest knows what its disks are
			verbs = append(verbs, api.VerbSnapshot, api.VerbAttachDisk, api.VerbDetachDisk, api.VerbAttachNIC, api.VerbDetachNIC)
		}
		return append(verbs, api.VerbConsoleToken, api.VerbDelete)
	case api.StateStarting:
		return []api.Verb{api.VerbPowerOff, api.VerbConsoleToken}
	case api.StateRunning:
		return []api.Verb{api.VerbPowerOff, api.VerbShutdown, api.VerbReset, api.VerbPause, api.VerbSave, api.VerbSnapshot, api.VerbMerge,
			api.VerbAttachDisk, api.VerbDetachDisk, api.VerbAttachNIC, api.VerbDetachNIC, api.VerbConsoleToken}
	case api.StatePaused:
		return []api.Verb{api.VerbPowerOff, api.VerbResume, api.VerbSnapshot, api.VerbMerge, api.VerbAttachDisk, api.VerbAttachNIC, api.VerbConsoleToken}
	case api.StateStopping:
		return []api.Verb{api.VerbPowerOn}
	default:
		return []api.Verb{}
	}
}

func newMachine(inv *Inventory, rec Record) *machine {
	rec.VM.Status.Allowed = allowed(rec.VM.Status)
	m := &machine{
		inv: inv, rec: rec, inbox: make(chan func(), 16), done: make(chan struct{}),
		deadline: stoppedTimer(), idle: stoppedTimer(), reattach: stoppedTimer(), again: stoppedTimer(), untidy: stoppedTimer(), detach: stoppedTimer(),
		log: inv.log.With("vm", rec.VM.ID),
	}
	// While it is up its last stop is of an earlier run, also when that had the
	// same number: numbers begin anew with the module.
	if last := rec.VM.Status.LastStop; last != nil && !m.up() {
		m.noted = last.RunID
	}
	return m
}

// stoppedTimer returns a timer that fires only after a Reset.
func stoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// loop runs until ctx ends or the VM is deleted, and in both cases until its
// workers have answered.
func (m *machine) loop(ctx context.Context, first func()) {
	defer close(m.done)
	defer m.release()
	work, cancel := context.WithCancel(ctx)
	defer cancel()
	m.ctx = work
	first()
	stop := ctx.Done()
	for {
		if m.deleted || m.closing {
			if m.pending == 0 {
				return
			}
		} else {
			m.next()
		}
		select {
		case <-stop:
			stop, m.closing = nil, true
		case fn := <-m.inbox:
			fn()
		case r, ok := <-m.reports():
			m.report(r, ok)
		case <-m.gone():
			m.monitorGone()
		case <-m.deadline.C:
			m.abortStart(&api.Error{Code: api.CodeMonitorFailed, Detail: "the guest did not begin to run in time"})
		case <-m.idle.C:
			m.checkIdle()
		case <-m.reattach.C:
			m.tryAttach()
		case <-m.again.C:
			m.restart()
		case <-m.untidy.C:
			m.tidyDisk()
			m.tidyPlugs()
		case <-m.detach.C:
			m.detachOverdue()
		}
	}
}

// release lets go of what the machine holds; the VM and its monitor live on.
func (m *machine) release() {
	for _, t := range []*time.Timer{m.deadline, m.idle, m.reattach, m.again, m.untidy, m.detach} {
		t.Stop()
	}
	if m.active != nil {
		m.active.cancel()
	}
	if m.handle != nil {
		m.handle.Close() // nothing to lose: the kernel keeps the VM
	}
	if m.mon != nil {
		m.mon.Close()
	}
}

func (m *machine) reports() <-chan Report {
	if m.mon == nil || m.deaf {
		return nil
	}
	return m.mon.Reports()
}

func (m *machine) gone() <-chan struct{} {
	if m.mon == nil || m.tearing || m.dead {
		return nil
	}
	return m.mon.Gone()
}

// post hands fn to the loop; false when the machine has ended.
func (m *machine) post(fn func()) bool {
	select {
	case m.inbox <- fn:
		return true
	case <-m.done:
		return false
	}
}

// work runs fn beside the loop; what it returns is run by the loop. The loop
// does not end before that, so a worker's result is never lost.
func (m *machine) work(fn func() func()) {
	m.pending++
	go func() {
		result := fn()
		m.inbox <- func() {
			m.pending--
			result()
		}
	}()
}

// call runs fn in the loop and returns its result.
func call[T any](m *machine, fn func() (T, error)) (T, error) {
	type answer struct {
		v   T
		err error
	}
	ch := make(chan answer, 1)
	var once sync.Once
	ok := m.post(func() {
		v, err := fn()
		once.Do(func() { ch <- answer{v, err} })
	})
	if !ok {
		var zero T
		return zero, errGone(m)
	}
	select {
	case a := <-ch:
		return a.v, a.err
	case <-m.done:
		select {
		case a := <-ch: // it answered, then ended
			return a.v, a.err
		default:
			var zero T
			return zero, errGone(m)
		}
	}
}

// await runs fn in the loop and returns what reply is called with, once, in the loop too.
func await[T any](m *machine, fn func(reply func(T, error))) (v T, err error) {
	type answer struct {
		v   T
		err error
	}
	ch := make(chan answer, 1)
	if !m.post(func() { fn(func(v T, err error) { ch <- answer{v, err} }) }) {
		return v, errGone(m)
	}
	select {
	case a := <-ch:
		return a.v, a.err
	case <-m.done:
		return v, errGone(m)
	}
}

// errGone is the error of asking a machine that has ended. m.deleted is read
// after done was closed.
func errGone(m *machine) error {
	if m.deleted {
		return &api.Error{Code: api.CodeNotFound, Detail: "no such VM"}
	}
	return &api.Error{Code: api.CodeUnavailable, Detail: "the daemon is stopping"}
}

func (m *machine) ref() *api.VMRef { return &api.VMRef{ID: m.rec.VM.ID, Name: m.rec.VM.Name} }

func (m *machine) state() api.State { return m.rec.VM.Status.State }

// up reports whether a guest ran and was not stopped.
func (m *machine) up() bool { return m.state() == api.StateRunning || m.state() == api.StatePaused }

// upState is the state of a VM that is up.
func (m *machine) upState() api.State {
	if m.paused {
		return api.StatePaused
	}
	return api.StateRunning
}

// setState changes the state in memory; the caller commits it.
func (m *machine) setState(s api.State) {
	now := m.inv.now()
	st := &m.rec.VM.Status
	st.State, st.Since = s, now
	st.Allowed = allowed(*st)
	m.rec.VM.UpdatedAt = now
	if s != api.StateStarting {
		m.deadline.Stop()
	}
}

// save writes the record and tells its state.
func (m *machine) save(tx Tx) error {
	if err := tx.Put(m.rec); err != nil {
		return err
	}
	return tx.Event(api.EventVMState, m.ref(), m.rec.VM.Status)
}

// commit writes what happened. When the disk refuses, the state in memory is
// still true, and the next start compares it with the kernel: so the error is
// logged and the machine goes on.
func (m *machine) commit(op string, fn func(Tx) error) {
	if err := m.inv.store.Update(context.WithoutCancel(m.ctx), fn); err != nil {
		m.log.Error("state not recorded", "op", op, "err", err)
	}
}
