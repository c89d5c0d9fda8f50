// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"errors"
	"slices"
	"time"

	"vmctl/daemon/api"
)

// attachTime is how long the monitor has for a device.
const attachTime = 30 * time.Second

func (m *machine) beginAttach() {
	if !m.beginDevice() {
		return
	}
	run := m.rec.VM.Status.RunID
	m.step(func(ctx context.Context) func() {
		has, err := m.inv.kernel.Attached(ctx, run)
		err = coded(api.CodeKernelFailed, "device-get", err)
		return func() {
			if m.closing {
				return // the next daemon begins once more
			}
			err = m.cutShort(err)
			if err != nil {
				m.finish(err)
				return
			}
			m.bring(has)
		}
	})
}

// bring records that the device comes, and has the kernel and the monitor take it.
func (m *machine) bring(has []Attached) {
	p, d := m.plugged(), *m.active.task.Device
	tap := p.Taps
	p.Coming = &Coming{Device: d}
	if len(has) > 0 {
		p.Coming.After = has[len(has)-1].Backend
	}
	if d.NIC != nil {
		p.Taps++
	}
	if err := m.record(func() { m.rec.Plugged = &p }); err != nil {
		m.finish(err)
		return
	}
	m.progress(20, false)
	mon, h, run := m.mon, m.handle, m.rec.VM.Status.RunID
	m.step(func(ctx context.Context) func() {
		number, err := m.inv.plug(ctx, mon, h, run, tap, d)
		return func() {
			if err != nil || !m.up() {
				m.settlePlug(err)
				return
			}
			m.came(number)
		}
	})
}

// plug gives a device to a run, and has the monitor put it into the machine.
func (inv *Inventory) plug(ctx context.Context, mon Monitor, h Handle, run uint64, tap int, d api.Device) (int, error) {
	attached, err := inv.attachDevice(ctx, h, run, tap, d)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, attachTime)
	defer cancel()
	var number int
	if d.NIC != nil {
		number, err = mon.AttachNIC(ctx, *d.NIC, attached)
	} else {
		number, err = mon.AttachDisk(ctx, *d.Disk, attached)
	}
	return number, coded(api.CodeMonitorFailed, "attach", err)
}

// attachDevice keeps no file of the device open: only then the kernel sees who has it.
func (inv *Inventory) attachDevice(ctx context.Context, h Handle, run uint64, tap int, d api.Device) (uint32, error) {
	if d.NIC != nil {
		file, vhost, err := inv.network.Open(run, tap, *d.NIC)
		if err != nil {
			return 0, coded(api.CodeKernelFailed, "network card", err)
		}
		attached, err := h.AttachNIC(file, vhost)
		file.Close() // nothing was written
		if vhost != nil {
			vhost.Close()
		}
		return attached, coded(api.CodeKernelFailed, "vm-attach-nic", err)
	}
	var f Files
	defer f.Close()
	if err := inv.openDisk(&f, "body.disk", *d.Disk); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	attached, err := inv.attachDisk(ctx, h, slices.Concat(f.disks[0]...))
	if err != nil {
		return 0, diskError(d.Disk.Path, err)
	}
	return attached, nil
}

// came records a device that the monitor has.
func (m *machine) came(number int) {
	p := m.plugged()
	d := p.Coming.Device
	plugs := p.of(d.NIC != nil)
	for i := range *plugs {
		if old := &(*plugs)[i]; old.Number == number { // the guest let go of it just now
			old.Gone, m.letGo = true, true
		}
	}
	*plugs = append(*plugs, Plug{Number: number})
	p.Coming = nil
	m.rec.Plugged = &p
	m.become(with(m.rec.VM.Spec, d))
	m.endPlug(isAttach, nil)
}

// endPlug records devices that came or went, and ends the active task, if it is of that
// kind, in the same transaction.
func (m *machine) endPlug(is func(api.TaskKind) bool, outcome error) {
	var t *api.Task
	if m.active != nil && is(m.active.task.Kind) {
		ended := m.endTask(outcome)
		t = &ended
	}
	m.commit("plug", func(tx Tx) error {
		err := errors.Join(tx.Put(m.rec), tx.Event(api.EventVMChanged, m.ref(), m.rec.VM))
		if t != nil {
			err = errors.Join(err, m.putTask(tx, *t), m.putQueue(tx))
		}
		return err
	})
	if t != nil {
		m.inv.board.Ended(t.ID)
	}
}

// tidyPlugs settles what an earlier daemon left, or a monitor that did not answer.
func (m *machine) tidyPlugs() {
	p := m.rec.Plugged
	if p == nil || m.settling || m.closing || m.deleted {
		return
	}
	m.letGo = true
	if p.Coming != nil && (m.active == nil || !isAttach(m.active.task.Kind) || !m.active.busy) {
		m.settlePlug(&api.Error{Code: api.CodeUnavailable, Detail: "the daemon was restarted before the device was attached"})
	}
}

// settlePlug makes the record, the monitor and the kernel agree about a device that was
// coming: either the monitor has it, or it is gone. The active task, if it is its own, ends
// with outcome unless the monitor has it.
func (m *machine) settlePlug(outcome error) {
	p := m.plugged()
	mon, h, run := m.mon, m.handle, m.rec.VM.Status.RunID
	ctx, a := m.ctx, m.active
	if a != nil && isAttach(a.task.Kind) {
		ctx = a.ctx
	} else {
		a = nil
	}
	switch {
	case m.closing:
		return // the next daemon does it
	case a != nil && a.abort != nil:
		m.finish(a.abort) // the end of the run settles the rest
		return
	case !m.up() || p.Coming == nil: // it went with the run
		if outcome == nil {
			outcome = &api.Error{Code: api.CodeStateConflict, Detail: "the VM stopped"}
		}
		m.notComing(outcome)
		return
	case mon == nil || m.deaf || h == nil:
		m.unsettledPlug(outcome, &api.Error{Code: api.CodeMonitorFailed, Detail: "no connection to the monitor"})
		return
	}
	m.settling = true
	m.work(func() func() {
		number, has, err := m.inv.settleComing(ctx, mon, h, run, p)
		return func() {
			m.settling = false
			switch {
			case !m.up(), err != nil && a != nil && a.abort != nil:
				m.settlePlug(outcome)
			case err != nil:
				m.unsettledPlug(outcome, err)
			case has:
				m.came(number)
			default:
				m.notComing(outcome)
			}
		}
	})
}

// settleComing finds the number that a device has in the monitor, or takes from the run
// what is of it.
func (inv *Inventory) settleComing(ctx context.Context, mon Monitor, h Handle, run uint64, p Plugged) (number int, has bool, err error) {
	all, err := inv.kernel.Attached(ctx, run)
	if err != nil {
		return 0, false, coded(api.CodeKernelFailed, "device-get", err)
	}
	for _, a := range all {
		if a.Backend <= p.Coming.After {
			continue
		}
		if number, has, err = find(ctx, mon, p, a.Backend); has || err != nil {
			return number, has, err
		}
		if err := h.Detach(a.Backend); err != nil {
			return 0, false, coded(api.CodeKernelFailed, "vm-detach", err)
		}
	}
	return 0, false, nil
}

// find asks a monitor for the number of the device that is coming.
func find(ctx context.Context, mon Monitor, p Plugged, backend uint32) (number int, has bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	d := p.Coming.Device
	if d.Disk != nil {
		for n := range api.MaxDisks + 1 { // and that of the seed
			now, err := step(ctx, mon, n, MergeLook)
			switch {
			case isCode(err, api.CodeDiskInvalid): // none, or one that leaves
			case err != nil:
				return 0, false, err
			case slices.Contains(now.Disks, backend):
				return n, true, nil
			}
		}
		return 0, false, nil
	}
	for n := range api.MaxNICs {
		if slices.ContainsFunc(p.NICs, func(p Plug) bool { return p.Number == n && !p.Leaving }) {
			continue
		}
		// One that leaves takes no change.
		err := mon.SetNIC(ctx, n, *d.NIC)
		if err == nil || !isCode(err, api.CodeNetworkInvalid) {
			return n, err == nil, coded(api.CodeMonitorFailed, "set-nic", err)
		}
	}
	return 0, false, nil
}

func isCode(err error, code api.Code) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Code == code
}

// notComing ends an attachment that was none.
func (m *machine) notComing(outcome error) {
	if m.rec.Plugged != nil {
		p := m.plugged()
		p.Coming = nil
		m.rec.Plugged = &p
	}
	if m.active == nil || !isAttach(m.active.task.Kind) {
		m.commit("settle", func(tx Tx) error { return tx.Put(m.rec) })
		return
	}
	t := m.endTask(outcome)
	m.commit("finish "+string(t.Kind), func(tx Tx) error {
		return errors.Join(tx.Put(m.rec), m.putTask(tx, t), m.putQueue(tx))
	})
	m.inv.board.Ended(t.ID)
}

// unsettledPlug ends a try that failed. The next one is made when there is a better chance.
func (m *machine) unsettledPlug(outcome, err error) {
	if m.closing {
		return // the next daemon does it
	}
	m.log.Warn("device not settled", "op", "settle", "err", err)
	m.untidy.Reset(untidyRetry)
	if a := m.active; a != nil && isAttach(a.task.Kind) {
		if outcome == nil {
			outcome = err
		}
		m.finish(outcome)
	}
}
