// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"vmctl/daemon/api"
)

// detachTimeout is how long a task waits for the guest.
const detachTimeout = 30 * time.Second

func (m *machine) beginDetach() {
	if !m.beginDevice() {
		return
	}
	d := *m.active.task.Device
	isNIC, place := d.NIC != nil, placeOf(m.rec.VM.Spec, d)
	p := m.plugged()
	plug := (*p.of(isNIC))[place]
	switch {
	case plug.Gone: // but for the kernel
		m.letGo = true
		m.detach.Reset(detachTimeout)
		return
	case plug.Leaving: // an earlier task did not live to see it
		m.askGuest(isNIC, plug.Number)
		return
	}
	mon, run, cards := m.mon, m.rec.VM.Status.RunID, len(p.NICs)
	m.step(func(ctx context.Context) func() {
		backends, err := m.inv.backendsOf(ctx, mon, run, isNIC, place, plug.Number, cards)
		return func() {
			if m.closing {
				return // the next daemon begins once more
			}
			err = m.cutShort(err)
			if err == nil {
				err = m.mark(isNIC, place, true, backends)
			}
			if err != nil {
				m.finish(err)
				return
			}
			m.askGuest(isNIC, plug.Number)
		}
	})
}

// backendsOf are the numbers in the run of what a device of the monitor is made of.
func (inv *Inventory) backendsOf(ctx context.Context, mon Monitor, run uint64, isNIC bool, place, number, cards int) ([]uint32, error) {
	if !isNIC {
		now, err := step(ctx, mon, number, MergeLook)
		return now.Disks, err
	}
	all, err := inv.kernel.Attached(ctx, run)
	if err != nil {
		return nil, coded(api.CodeKernelFailed, "device-get", err)
	}
	// Cards of the spec are in the order in which they came.
	all = slices.DeleteFunc(all, func(a Attached) bool { return !a.IsNIC })
	if len(all) != cards {
		return nil, &api.Error{Code: api.CodeKernelFailed, Detail: fmt.Sprintf("the kernel has %d network cards of the VM, and not %d", len(all), cards)}
	}
	return []uint32{all[place].Backend}, nil
}

// mark records that a device leaves, or does not.
func (m *machine) mark(isNIC bool, place int, leaving bool, backends []uint32) error {
	p := m.plugged()
	plug := &(*p.of(isNIC))[place]
	plug.Leaving, plug.Backends = leaving, backends
	return m.record(func() { m.rec.Plugged = &p })
}

// askGuest asks the guest to let go of the device of the active task.
func (m *machine) askGuest(isNIC bool, number int) {
	m.progress(50, false)
	mon := m.mon
	m.step(func(ctx context.Context) func() {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		err := mon.Detach(ctx, isNIC, number)
		return func() { m.guestAsked(isNIC, err) }
	})
}

func (m *machine) guestAsked(isNIC bool, err error) {
	place := placeOf(m.rec.VM.Spec, *m.active.task.Device)
	switch {
	case m.closing:
		return // the next daemon goes on
	case place < 0: // it went with the run
		m.finish(nil)
	case !m.up() && m.rec.Plugged == nil:
		m.finish(&api.Error{Code: api.CodeStateConflict, Detail: "the VM stopped"})
	case m.active.abort != nil:
		m.finish(m.active.abort)
	case errors.Is(err, ErrRefused):
		if e := m.mark(isNIC, place, false, nil); e != nil {
			m.log.Error("state not recorded", "op", "detach", "err", e)
		}
		m.finish(coded(api.CodeMonitorFailed, "detach", err))
	case err != nil && !errors.Is(err, ErrNoDevice):
		m.letGo = true
		m.finish(coded(api.CodeMonitorFailed, "detach", err))
	default:
		m.letGo = m.letGo || err != nil
		m.detach.Reset(detachTimeout)
	}
}

// detachOverdue looks once more, as what the monitor tells may be lost.
func (m *machine) detachOverdue() {
	a := m.active
	if a == nil || !isDetach(a.task.Kind) || a.busy {
		return
	}
	a.overdue, m.letGo = true, true
	if m.mon == nil || m.deaf || m.handle == nil {
		m.finish(errOverdue())
	}
}

func errOverdue() error {
	return &api.Error{Code: api.CodeDetachTimeout, Detail: fmt.Sprintf("the guest has not let go of the device in %v: it goes as soon as the guest does, is reset, or ends", detachTimeout)}
}

// abortDevice ends the active task of a device: a powerOff waits.
func (m *machine) abortDevice(cause error) {
	a := m.active
	switch {
	case a.abort != nil:
	case isAttach(a.task.Kind), isDetach(a.task.Kind) && a.busy:
		a.abort = cause
		a.cancel()
	case isDetach(a.task.Kind) && !m.settling:
		m.finish(cause)
	}
}

// leaver is a device that leaves.
type leaver struct {
	Plug
	isNIC bool
	place int
}

func (m *machine) leavers() (all []leaver) {
	p := m.plugged()
	for _, isNIC := range []bool{false, true} {
		for place, plug := range *p.of(isNIC) {
			if plug.Leaving {
				all = append(all, leaver{plug, isNIC, place})
			}
		}
	}
	return all
}

// sweep looks which devices the guest let go of, and takes them from the run and out of the
// spec. It waits until nothing else is done that knows them by their places.
func (m *machine) sweep() {
	a := m.active
	waits := a != nil && isDetach(a.task.Kind) && !a.busy
	if !m.letGo || m.settling || m.changing || m.tearing || a != nil && !waits {
		return
	}
	mon, h, p := m.mon, m.handle, m.rec.Plugged
	if p == nil || p.Coming != nil || m.rec.Scrap != nil || !m.up() || mon == nil || m.deaf || h == nil {
		return
	}
	m.letGo = false
	all := m.leavers()
	if len(all) == 0 {
		return
	}
	m.settling = true
	m.work(func() func() {
		gone, err := letGo(m.ctx, mon, h, all)
		return func() { m.wentAway(gone, err) }
	})
}

// letGo takes from the run what the guest let go of.
func letGo(ctx context.Context, mon Monitor, h Handle, all []leaver) (gone []leaver, failed error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for _, l := range all {
		if !l.Gone {
			switch err := mon.Detach(ctx, l.isNIC, l.Number); {
			case err == nil:
				continue
			case !errors.Is(err, ErrNoDevice):
				failed = errors.Join(failed, err)
				continue
			}
		}
		var err error
		for _, b := range l.Backends {
			err = errors.Join(err, h.Detach(b))
		}
		if err == nil {
			gone = append(gone, l)
		}
		failed = errors.Join(failed, err)
	}
	return gone, failed
}

// wentAway records what the guest let go of.
func (m *machine) wentAway(gone []leaver, err error) {
	m.settling = false
	if m.closing || !m.up() || m.rec.Plugged == nil {
		return // the next daemon does it, or the end of the run has
	}
	if len(gone) > 0 {
		m.takeOut(gone)
		a := m.active
		ended := a != nil && isDetach(a.task.Kind) && placeOf(m.rec.VM.Spec, *a.task.Device) < 0
		m.endPlug(func(k api.TaskKind) bool { return ended }, nil)
	}
	if err != nil {
		m.log.Warn("device not settled", "op", "detach", "err", err)
		m.untidy.Reset(untidyRetry)
	}
	if a := m.active; a != nil && isDetach(a.task.Kind) && a.overdue {
		m.finish(errOverdue())
	}
}

// takeOut takes devices out of the spec.
func (m *machine) takeOut(gone []leaver) {
	p, spec := m.plugged(), m.rec.VM.Spec
	for _, l := range slices.Backward(gone) { // places of those before it stay
		plugs := p.of(l.isNIC)
		*plugs = slices.Delete(*plugs, l.place, l.place+1)
		spec = without(spec, l.isNIC, l.place)
	}
	m.rec.Plugged = &p
	m.become(spec)
}

// moving reports whether a device is about to come or to go: a machine is not saved then,
// as it is of the spec, or not, when the run has ended.
func (m *machine) moving() bool {
	p := m.rec.Plugged
	return p != nil && (p.Coming != nil || len(m.leavers()) > 0)
}

func errMoving() error {
	return &api.Error{Code: api.CodeStateConflict, Detail: "a device of the VM is about to come or to go: it can be saved when it has, or after it was powered off and on"}
}

// unplug is the end of a run: what its guest was asked to let go of goes with it. It
// reports whether anything did.
func (m *machine) unplug() bool {
	gone := m.leavers()
	if len(gone) > 0 {
		m.takeOut(gone)
	}
	m.letGo = false
	if m.rec.VM.Status.Saved == nil {
		m.rec.Plugged = nil
	}
	return len(gone) > 0
}
