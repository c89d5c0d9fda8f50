// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"errors"
	"fmt"

	"vmctl/daemon/api"
)

// notice takes what the kernel says about a run of this VM. What it says about
// an earlier one, or before a dump that was taken since, is old.
func (m *machine) notice(u Update) {
	if u.Seq <= m.seq || u.Run.ID != m.rec.VM.Status.RunID {
		return
	}
	m.seq = u.Seq
	switch u.Kind {
	case NoticeRunning, NoticePaused, NoticeResumed:
		m.held(u.Run.Paused)
		if u.Kind == NoticeRunning {
			m.runs()
		}
	case NoticeReset:
		if m.mon == nil || m.deaf { // else the monitor says it, with a count
			m.guestReset(m.resets + uint64(u.Count))
		}
	case NoticeStopped, NoticeDestroyed:
		m.stopped(u.Run)
	}
}

// dump compares with what the kernel has, after notices may have been lost.
func (m *machine) dump(seen sight, seq uint64, anew bool) {
	if anew {
		m.seq = 0
	}
	id, run := m.rec.VM.Status.RunID, seen.run
	if seq < m.seq || id == 0 {
		return
	}
	switch {
	case run != nil && run.ID == id && run.State == RunRunning:
		m.seq = seq
		m.held(run.Paused)
		m.runs()
	case run != nil && run.ID == id && run.State == RunStopped:
		m.seq = seq
		m.stopped(*run)
	case (run == nil || run.ID != id) && m.up():
		// A run that is not running yet may be younger than the dump.
		m.seq = seq
		m.stopped(seen.end(id).Run)
	}
}

// runs: the kernel has seen the guest run.
func (m *machine) runs() {
	m.running = true
	if m.state() == api.StateStarting && m.active != nil && m.active.configured && !m.aborted() {
		m.started()
	}
}

// held: the kernel says who keeps the gate shut.
func (m *machine) held(by Holders) {
	m.paused = by != 0
	defer m.gateEnds()
	if !m.up() || m.state() == m.upState() {
		return
	}
	m.setState(m.upState())
	m.commit("pause", m.save)
}

// stopped: the kernel has ended the run. Its reason is told at once, before
// the monitor is reaped.
func (m *machine) stopped(run Run) {
	run.State = RunStopped
	starting := m.state() == api.StateStarting
	if !m.running {
		// No guest ran: the task says why, and there is no stop to tell of.
		if starting {
			m.loseStart(&api.Error{Code: api.CodeMonitorFailed, Detail: fmt.Sprintf("the VM stopped before the guest ran: %s", stopDetail(run))})
		}
		return
	}
	fresh := m.note(run)
	running := m.up()
	if running {
		m.setState(api.StateStopping)
	}
	m.commit("stopped", func(tx Tx) error {
		err := m.saveStop(tx, fresh)
		if running {
			err = errors.Join(err, m.save(tx))
		}
		return err
	})
	switch {
	case starting:
		m.loseStart(&api.Error{Code: api.CodeMonitorFailed, Detail: "the guest stopped at once: " + stopDetail(run)})
	case running:
		m.teardown()
	}
}
