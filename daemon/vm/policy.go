// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"vmctl/daemon/api"
)

// Times of restarts by policy. A guest that crashes again and again is started ever
// more seldom, and one that ran for long is none of those.
const (
	firstRestart = time.Second
	lastRestart  = 5 * time.Minute
	healthyRun   = 10 * time.Minute
)

// byPolicy is the actor of a start that nobody asked for.
const byPolicy = "vmctld"

// policyFor is what the spec says about an end. What an operator ended stays off, and
// so does what was caught tampering.
func policyFor(spec api.VMSpec, reason api.StopReason) api.EndPolicy {
	switch reason {
	case api.StopPoweroff:
		return spec.OnPoweroff
	case api.StopPanic, api.StopTripleFault, api.StopInternalError, api.StopMonitorGone:
		return spec.OnCrash
	default:
		return api.EndStop
	}
}

// plan says, when a run was torn down, whether and when the VM is started again. The
// time is a part of the status: it is kept over a restart of the daemon.
func (m *machine) plan(run uint64) {
	st := &m.rec.VM.Status
	a := m.active
	retry := a != nil && a.task.Kind == api.TaskPowerOn && a.task.Actor == byPolicy
	switch {
	case m.queue.Len() > 0, a != nil && !retry && (a.task.Kind == api.TaskPowerOn || a.task.Kind == api.TaskPowerOff):
		return // somebody says what is to become of it
	case retry:
	case st.LastStop == nil || st.LastStop.RunID != run || policyFor(m.rec.VM.Spec, st.LastStop.Reason) != api.EndRestart:
		return
	case st.LastStop.Reason == api.StopPoweroff || m.inv.now().Sub(m.upSince) >= healthyRun:
		st.Restarts = 0
	}
	st.Restarts++
	delay := lastRestart
	if n := st.Restarts - 1; n < 10 {
		delay = min(firstRestart<<n, lastRestart)
	}
	at := m.inv.now().Add(delay)
	st.RestartAt = &at
	st.Allowed = allowed(*st)
	m.again.Reset(delay)
}

// restart starts the VM as planned.
func (m *machine) restart() {
	if m.rec.VM.Status.RestartAt == nil || m.state() != api.StateOff || m.active != nil || m.queue.Len() > 0 {
		return
	}
	t := api.Task{ID: uuid.NewString(), Kind: api.TaskPowerOn, VM: m.ref(), State: api.TaskQueued, Actor: byPolicy, CreatedAt: m.inv.now()}
	err := m.inv.store.Update(context.WithoutCancel(m.ctx), func(tx Tx) error {
		return errors.Join(m.putTask(tx, t), tx.Audit(byPolicy, "", string(t.Kind), m.rec.VM.ID))
	})
	if err != nil {
		m.log.Error("restart not recorded", "op", "restart", "err", err)
		m.again.Reset(lastRestart)
		return
	}
	m.queue.Push(t)
}

// forgetPlan is a start, or an operator who wants the VM off.
func (m *machine) forgetPlan() {
	st := &m.rec.VM.Status
	m.again.Stop()
	st.RestartAt = nil
	if m.active.task.Actor != byPolicy {
		st.Restarts = 0
	}
	st.Allowed = allowed(*st)
}
