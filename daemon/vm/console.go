// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"time"

	"vmctl/daemon/api"
	"vmctl/daemon/task"
)

const (
	tokenLife    = 60 * time.Second
	tokenBytes   = 24               // of randomness: 192 bits
	grantTimeout = 10 * time.Second // of the monitor
	idleTime     = 2 * time.Minute  // of a monitor without a run and without viewers
	attachRetry  = time.Second
)

// withMonitor calls fn in the loop once there is a monitor, or with why not.
func (m *machine) withMonitor(fn func(error)) {
	switch {
	case m.closing:
		fn(errGone(m))
	case m.mon != nil && !m.tearing:
		fn(nil)
	case m.tearing:
		fn(&api.Error{Code: api.CodeStateConflict, Detail: "the VM is stopping"})
	default:
		m.needMon = append(m.needMon, fn)
		if !m.spawning {
			m.spawn()
		}
	}
}

func (m *machine) takeNeeds() []func(error) {
	needs := m.needMon
	m.needMon = nil
	return needs
}

func (m *machine) monitorSpec() MonitorSpec {
	return MonitorSpec{UUID: m.rec.VM.ID, Name: m.rec.VM.Name, UID: m.rec.UID, MemoryBytes: m.rec.VM.Spec.MemoryBytes}
}

func (m *machine) spawn() {
	m.spawning = true
	spec := m.monitorSpec()
	m.work(func() func() {
		ctx, cancel := context.WithTimeout(m.ctx, spawnTimeout)
		defer cancel()
		mon, err := m.inv.launcher.Start(ctx, spec)
		return func() { m.spawned(mon, coded(api.CodeMonitorFailed, "spawn", err)) }
	})
}

// spawned keeps the monitor also when nobody waits any more: it serves the
// consoles, and ends when it is idle.
func (m *machine) spawned(mon Monitor, err error) {
	m.spawning = false
	if err == nil {
		m.mon, m.deaf = mon, false
		m.rec.Monitor = mon.Process()
		m.commit("spawn", func(tx Tx) error { return tx.Put(m.rec) })
		m.idle.Reset(idleTime)
	}
	for _, fn := range m.takeNeeds() {
		fn(err)
	}
}

// consoleToken makes a token and gives its hash to the monitor. reply is
// called once, in the loop.
func (m *machine) consoleToken(ctx context.Context, mode api.ConsoleMode, reply func(api.ConsoleToken, error)) {
	if err := m.admit(api.VerbConsoleToken, target{}); err != nil {
		reply(api.ConsoleToken{}, err)
		return
	}
	token, grant := newGrant(ctx, mode, m.inv.now())
	m.withMonitor(func(err error) {
		if err != nil {
			reply(api.ConsoleToken{}, err)
			return
		}
		mon := m.mon
		m.idle.Reset(idleTime)
		m.work(func() func() {
			gctx, cancel := context.WithTimeout(m.ctx, grantTimeout)
			defer cancel()
			err := coded(api.CodeMonitorFailed, "console-grant", mon.Grant(gctx, grant))
			return func() { m.granted(ctx, token, grant, err, reply) }
		})
	})
}

func (m *machine) granted(ctx context.Context, token string, g ConsoleGrant, err error, reply func(api.ConsoleToken, error)) {
	if err == nil {
		m.serves = true
		// No change of state: the transaction is there for its audit row.
		err = m.inv.store.Update(context.WithoutCancel(ctx), func(Tx) error { return nil })
	}
	if err != nil {
		reply(api.ConsoleToken{}, err)
		return
	}
	reply(api.ConsoleToken{Token: token, ExpiresAt: g.Expires, Console: "serial0",
		Socket: m.inv.launcher.ConsoleSocket(m.rec.VM.ID)}, nil)
}

// newGrant makes a token that is bound to who asked.
func newGrant(ctx context.Context, mode api.ConsoleMode, now time.Time) (string, ConsoleGrant) {
	var raw [tokenBytes]byte
	rand.Read(raw[:]) // never fails
	token := base64.RawURLEncoding.EncodeToString(raw[:])
	g := ConsoleGrant{Hash: sha256.Sum256([]byte(token)), Expires: now.Add(tokenLife), Mode: mode}
	if o := task.OriginOf(ctx); o != nil {
		g.Session, g.User = o.Session, o.Actor
	}
	return token, g
}

// report is what the monitor says by itself; ok is false when it hung up.
func (m *machine) report(r Report, ok bool) {
	switch {
	case !ok:
		m.deaf = true
		m.reattach.Reset(attachRetry)
	case r.ConsoleOpened != nil:
		m.consoleEvent(api.EventConsoleOpened, r.ConsoleOpened)
	case r.ConsoleClosed != nil:
		m.idle.Reset(idleTime)
		m.consoleEvent(api.EventConsoleClosed, r.ConsoleClosed)
	case r.Resets > 0:
		m.guestReset(r.Resets)
	case r.LetGo:
		m.letGo = true
	case r.Broken != nil:
		m.commit("device broken", func(tx Tx) error { return tx.Event(api.EventVMDeviceBroken, m.ref(), r.Broken) })
	}
	// That it stopped is the kernel's to say.
}

func (m *machine) consoleEvent(kind api.EventKind, c *api.ConsoleData) {
	m.commit(string(kind), func(tx Tx) error {
		return errors.Join(tx.Event(kind, m.ref(), c), tx.Audit(c.User, c.Session, string(kind), m.rec.VM.ID))
	})
}

// guestReset tells of resets once, from whichever of the kernel and the
// monitor is first to count them.
func (m *machine) guestReset(count uint64) {
	if count <= m.resets {
		return
	}
	m.resets = count
	m.commit("reset", func(tx Tx) error {
		return tx.Event(api.EventVMReset, m.ref(), api.ResetData{RunID: m.rec.VM.Status.RunID, Count: count})
	})
}

// monitorGone: its process has ended. With a run that it had, that ended too.
func (m *machine) monitorGone() {
	switch {
	case m.state() == api.StateStarting && m.active != nil && m.active.handed:
		m.dead = true // teardown closes it
		m.loseStart(&api.Error{Code: api.CodeMonitorFailed, Detail: "the monitor ended before the guest ran"})
	case m.state() != api.StateOff && m.state() != api.StateStarting:
		m.teardown()
	default: // it served consoles alone
		m.mon.Close()
		m.dropMonitor()
		m.commit("monitor gone", func(tx Tx) error { return tx.Put(m.rec) })
	}
}

// tryAttach connects again to a monitor that hung up but lives.
func (m *machine) tryAttach() {
	if m.mon == nil || !m.deaf || m.tearing || m.closing {
		return
	}
	old, spec, p := m.mon, m.monitorSpec(), m.rec.Monitor
	m.work(func() func() {
		ctx, cancel := context.WithTimeout(m.ctx, grantTimeout)
		defer cancel()
		mon, err := m.inv.launcher.Attach(ctx, spec, p)
		return func() { m.attached(old, mon, err) }
	})
}

func (m *machine) attached(old, mon Monitor, err error) {
	switch {
	case err != nil && m.mon == old:
		m.log.Warn("monitor does not answer", "op", "attach", "pid", m.rec.Monitor.PID, "err", err)
		m.reattach.Reset(10 * attachRetry)
	case err != nil:
	case m.mon != old || m.tearing:
		mon.Close()
	default:
		old.Close()
		m.mon, m.deaf = mon, false
		m.tidyDisk()
		m.tidyPlugs()
	}
}

// checkIdle ends a monitor that serves nobody.
func (m *machine) checkIdle() {
	if m.mon == nil || m.deaf || m.state() != api.StateOff || m.tearing || m.active != nil {
		return
	}
	mon := m.mon
	m.work(func() func() {
		ctx, cancel := context.WithTimeout(m.ctx, grantTimeout)
		defer cancel()
		n, err := mon.Viewers(ctx)
		return func() {
			if err != nil || n > 0 || m.mon != mon || m.state() != api.StateOff || m.active != nil {
				m.idle.Reset(idleTime)
				return
			}
			m.retire()
		}
	})
}

// retire ends the monitor of a VM that is off.
func (m *machine) retire() {
	mon := m.mon
	m.tearing = true
	m.work(func() func() {
		err := reap(mon)
		return func() {
			if err != nil {
				m.log.Error("idle monitor stays", "op", "retire", "err", err)
			}
			m.dropMonitor()
			m.commit("retire", func(tx Tx) error { return tx.Put(m.rec) })
		}
	})
}

// closeConsoles ends the consoles of a session.
func (m *machine) closeConsoles(session, reason string) {
	if m.mon == nil || m.deaf || m.tearing {
		return
	}
	mon := m.mon
	m.work(func() func() {
		ctx, cancel := context.WithTimeout(m.ctx, grantTimeout)
		defer cancel()
		err := mon.CloseConsoles(ctx, session, reason)
		return func() {
			if err != nil {
				m.log.Warn("consoles not closed", "op", "console-close", "err", err)
			}
		}
	})
}
