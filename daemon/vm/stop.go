// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"vmctl/daemon/api"
)

// Times of a stop. A monitor ends by itself when its VM is stopped; one that
// does not is killed.
const (
	stopGrace   = 3 * time.Second
	killTimeout = 20 * time.Second
)

// teardown ends the run and its monitor, whatever is there of them.
func (m *machine) teardown() {
	if m.state() != api.StateStopping {
		m.setState(api.StateStopping)
		m.commit("stop", m.save)
	}
	if m.tearing {
		return
	}
	m.tearing = true
	h, mon := m.handle, m.mon
	if a := m.active; a != nil && a.task.Kind == api.TaskPowerOn && !a.handed && m.serves {
		mon = nil // it never had the run, and serves consoles
	}
	m.work(func() func() {
		run, err := endRun(h, mon)
		return func() { m.torn(run, mon != nil, err) }
	})
}

// endRun stops the run, reaps the monitor, destroys the run. It returns why the
// run ended, zero when no guest instruction ran. Its time is bounded, and it
// does not end early with the daemon: half of it is never done.
func endRun(h Handle, mon Monitor) (Run, error) {
	var run Run
	var failed []error
	if h != nil {
		before, err := h.Run()
		failed = append(failed, err)
		if err := h.Stop(); !errors.Is(err, ErrStopped) {
			failed = append(failed, err)
		}
		if after, err := h.Run(); err == nil && before.State >= RunRunning {
			run = after
		}
	}
	if mon != nil {
		failed = append(failed, reap(mon))
	}
	if h != nil {
		failed = append(failed, h.Destroy(), h.Close())
	}
	return run, errors.Join(failed...)
}

// reap ends a monitor: asked first, then killed.
func reap(mon Monitor) error {
	defer mon.Close()
	ctx, cancel := context.WithTimeout(context.Background(), stopGrace)
	told := make(chan struct{})
	defer func() { cancel(); <-told }()
	go func() {
		defer close(told)
		// It may be ending already, or hang; the kill below needs no answer.
		_ = mon.Shutdown(ctx)
	}()
	select {
	case <-mon.Gone():
		return nil
	case <-ctx.Done():
	}
	if err := mon.Kill(); err != nil {
		return fmt.Errorf("kill monitor: %w", err)
	}
	timer := time.NewTimer(killTimeout)
	defer timer.Stop()
	select {
	case <-mon.Gone():
		return nil
	case <-timer.C:
		return errors.New("monitor does not end after SIGKILL")
	}
}

// torn is off again: state, reason, and the end of the task in one transaction.
func (m *machine) torn(run Run, reaped bool, err error) {
	if err != nil {
		m.log.Error("run not ended cleanly", "op", "stop", "run", m.rec.VM.Status.RunID, "err", err)
	}
	m.handle, m.tearing = nil, false
	if reaped {
		m.dropMonitor()
	}
	fresh := m.note(run)
	ran := m.rec.VM.Status.RunID
	m.rec.VM.Status.RunID = 0
	m.setState(api.StateOff)
	m.plan(ran)
	unplugged := m.unplug()
	var ended []api.Task
	if a := m.active; a != nil {
		// A start that was undone failed; a powerOff is done; a reset that is
		// still busy ends by itself.
		switch a.task.Kind {
		case api.TaskPowerOn, api.TaskPowerOff:
			ended = append(ended, m.endTask(a.abort))
		case api.TaskSave:
			if a.busy { // the run ended under it: see wasSaved
				break
			}
			ended = append(ended, m.endTask(a.abort))
		case api.TaskAttachDisk, api.TaskAttachNIC:
			if !a.busy && !m.settling { // an earlier daemon's
				ended = append(ended, m.endTask(&api.Error{Code: api.CodeStateConflict, Detail: "the VM stopped"}))
			}
		case api.TaskDetachDisk, api.TaskDetachNIC:
			if !a.busy { // it waits for the guest
				ended = append(ended, m.endTask(nil))
			}
		case api.TaskPause, api.TaskResume:
			if !a.busy { // it waits for a word that the kernel does not say any more
				ended = append(ended, m.endTask(&api.Error{Code: api.CodeStateConflict, Detail: "the VM stopped"}))
			}
		}
	}
	m.commit("stopped", func(tx Tx) error {
		errs := []error{m.saveStop(tx, fresh), m.save(tx)}
		if unplugged {
			errs = append(errs, tx.Event(api.EventVMChanged, m.ref(), m.rec.VM))
		}
		for _, t := range ended {
			errs = append(errs, m.putTask(tx, t))
		}
		return errors.Join(append(errs, m.putQueue(tx))...)
	})
	for _, t := range ended {
		m.inv.board.Ended(t.ID)
	}
	m.tidyDisk()
}

// dropMonitor forgets a monitor that has ended and was closed.
func (m *machine) dropMonitor() {
	m.mon, m.tearing, m.deaf, m.dead, m.serves = nil, false, false, false, false
	m.rec.Monitor = Process{}
}

// note takes over why a run ended, once per run; it reports whether that is new.
func (m *machine) note(run Run) bool {
	if run.ID == 0 || run.State != RunStopped || m.noted == run.ID {
		return false
	}
	m.noted = run.ID
	at := run.Ended
	if at.IsZero() {
		at = m.inv.now()
	}
	m.rec.VM.Status.LastStop = &api.LastStop{Reason: run.Reason, Claimed: run.Claimed, At: at,
		RunID: run.ID, Detail: stopDetail(run)}
	return true
}

// saveStop tells why a run ended. It writes the record with it, so that the next
// daemon does not tell it again.
func (m *machine) saveStop(tx Tx, fresh bool) error {
	if !fresh {
		return nil
	}
	return errors.Join(tx.Put(m.rec), tx.Event(api.EventVMStopped, m.ref(), m.rec.VM.Status.LastStop))
}

func stopDetail(run Run) string {
	switch run.Reason {
	case api.StopOperator:
		return "powered off or saved by an operator"
	case api.StopMonitorGone:
		return "the monitor ended, was killed, or gave its descriptor away"
	case api.StopTampered:
		return "the monitor was caught with a descriptor of KVM"
	case api.StopDestroyed:
		return "the kernel has this run no more: destroyed, or the host or the module was restarted"
	case api.StopPoweroff:
		return "the guest powered off"
	case api.StopReset:
		return "the guest reset, and its policy is to stop then"
	case api.StopTripleFault:
		return fmt.Sprintf("the guest met a triple fault (data %#x)", run.Data)
	case api.StopPanic:
		return fmt.Sprintf("the guest reported a panic (data %#x)", run.Data)
	default:
		return fmt.Sprintf("the monitor gave up (data %#x)", run.Data)
	}
}

func (m *machine) beginDelete() {
	m.progress(0, false)
	mon, id := m.mon, m.rec.VM.ID
	m.tearing = true
	m.step(func(ctx context.Context) func() {
		var err error
		if mon != nil {
			cctx, cancel := context.WithTimeout(ctx, stopGrace)
			// A monitor that does not answer is killed by reap.
			_ = mon.CloseConsoles(cctx, "", "vmDeleted")
			cancel()
			err = reap(mon)
		}
		if err == nil {
			err = errors.Join(m.inv.launcher.Forget(id), m.inv.saves.remove(id), m.inv.overlays.forget(id))
		}
		return func() { m.forgotten(err) }
	})
}

// forgotten ends a deletion: the record goes in the same transaction that ends
// the task, so a crash before it leaves a VM whose deletion is begun again.
func (m *machine) forgotten(err error) {
	m.dropMonitor()
	if err != nil {
		m.finish(&api.Error{Code: api.CodeInternal, Detail: "what the VM left could not be removed", Err: err})
		return
	}
	t := m.endTask(nil)
	err = m.inv.store.Update(context.WithoutCancel(m.ctx), func(tx Tx) error {
		return errors.Join(tx.Delete(m.rec.VM.ID), m.putTask(tx, t), tx.Event(api.EventVMDeleted, m.ref(), api.EmptyData{}))
	})
	if err != nil {
		m.log.Error("deletion not recorded", "op", "delete", "err", err)
		return
	}
	m.deleted = true
	m.inv.drop(m)
	m.inv.board.Ended(t.ID)
}
