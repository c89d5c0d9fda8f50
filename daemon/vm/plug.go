// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"vmctl/daemon/api"
)

// Plugged says, of a run whose devices came or went, which of the monitor's the spec's are:
// a device keeps its number, and its place is another when one before it goes. What goes on
// from a save has the numbers that it had.
//
// Here, too, what is recorded can be followed whatever is cut off:
//
//	attach: that a device is coming is recorded, with the number of the last backend that
//	the run has. Then it is attached in the kernel and in the monitor, and then recorded
//	in the spec. What the run has behind that number is of the device, and either the
//	monitor has it too, or it goes.
//
//	detach: that a device leaves is recorded, with its backends, and then the guest is
//	asked. When it has let go of it, at once or much later, they are detached in the
//	kernel, and then it is taken out of the spec. A guest that is reset or ends has let
//	go of it as well. Nobody can take it away from a guest that works with it: a task
//	that waited for long enough fails, and the device still leaves.
type Plugged struct {
	Disks  []Plug  `json:"disks"` // by place in the spec
	NICs   []Plug  `json:"nics"`
	Seed   int     `json:"seed"` // the number of the seed's disk, if there is one
	Taps   int     `json:"taps"` // how many the run has had
	Coming *Coming `json:"coming,omitempty"`
}

// Plug is a disk or a network card of a monitor.
type Plug struct {
	Number   int      `json:"number"`
	Leaving  bool     `json:"leaving,omitempty"`  // the guest was asked to let go of it
	Gone     bool     `json:"gone,omitempty"`     // it has, and the number is another's
	Backends []uint32 `json:"backends,omitempty"` // of one that leaves
}

// Coming is a device that is not recorded in the spec.
type Coming struct {
	Device api.Device `json:"device"`
	After  uint32     `json:"after"` // number of the backend that the run had last
}

const (
	attachTime    = 30 * time.Second // of the monitor
	detachTimeout = 30 * time.Second // of the guest
)

// isAttach and isDetach report whether a task is one for a device that comes or goes.
func isAttach(k api.TaskKind) bool { return k == api.TaskAttachDisk || k == api.TaskAttachNIC }
func isDetach(k api.TaskKind) bool { return k == api.TaskDetachDisk || k == api.TaskDetachNIC }

// plugged is a copy of what is recorded, or that all have the numbers of their places.
func (r Record) plugged() Plugged {
	if p := r.Plugged; p != nil {
		copied := *p
		copied.Disks, copied.NICs = slices.Clone(p.Disks), slices.Clone(p.NICs)
		return copied
	}
	disks, cards := len(r.VM.Spec.Disks), len(r.VM.Spec.NICs)
	return Plugged{Disks: numbered(disks), NICs: numbered(cards), Seed: disks, Taps: cards}
}

func (m *machine) plugged() Plugged { return m.rec.plugged() }

func numbered(n int) []Plug {
	plugs := make([]Plug, n)
	for i := range plugs {
		plugs[i].Number = i
	}
	return plugs
}

func (p *Plugged) of(isNIC bool) *[]Plug {
	if isNIC {
		return &p.NICs
	}
	return &p.Disks
}

// disk is the monitor's number of a disk of the spec's.
func (m *machine) disk(place int) int { return m.plugged().Disks[place].Number }

// leaves reports whether a disk leaves, or is about to, that has that place or one before.
func (m *machine) leaves(place int) bool {
	for i, d := range m.plugged().Disks[:place+1] {
		if d.Leaving || m.queue.Any(func(t api.Task) bool { return m.detaches(t, i) }) || m.active != nil && m.detaches(m.active.task, i) {
			return true
		}
	}
	return false
}

func (m *machine) detaches(t api.Task, place int) bool {
	return t.Kind == api.TaskDetachDisk && placeOf(m.rec.VM.Spec, *t.Device) == place
}

// sameDevice reports whether a spec or a task means the same device: of a VM no two
// disks have the same path, and of those that come or go no two cards the same address.
func sameDevice(a, b api.Device) bool {
	if a.Disk != nil && b.Disk != nil {
		x, _ := a.Disk.Named()
		y, _ := b.Disk.Named()
		return x.Path == y.Path
	}
	return a.NIC != nil && b.NIC != nil && a.NIC.MAC == b.NIC.MAC
}

// placeOf is where a spec has a device, or -1.
func placeOf(s api.VMSpec, d api.Device) int {
	if d.Disk != nil {
		return slices.IndexFunc(s.Disks, func(o api.DiskSpec) bool { return sameDevice(d, api.Device{Disk: &o}) })
	}
	return slices.IndexFunc(s.NICs, func(o api.NICSpec) bool { return sameDevice(d, api.Device{NIC: &o}) })
}

// with and without are a spec that has, or has not, a device.
func with(s api.VMSpec, d api.Device) api.VMSpec {
	if d.Disk != nil {
		s.Disks = append(slices.Clone(s.Disks), *d.Disk)
	} else {
		s.NICs = append(slices.Clone(s.NICs), *d.NIC)
	}
	return s
}

func without(s api.VMSpec, isNIC bool, place int) api.VMSpec {
	if isNIC {
		s.NICs = slices.Delete(slices.Clone(s.NICs), place, place+1)
	} else {
		s.Disks = slices.Delete(slices.Clone(s.Disks), place, place+1)
	}
	return s
}

// AskDevice queues a verb for a device of the VM with that uuid: for one that comes, all of
// it is said, and for one that goes its path or address. The error is an *api.Error.
func (inv *Inventory) AskDevice(ctx context.Context, id string, verb api.Verb, d api.Device) (api.Task, error) {
	m := inv.machine(id)
	if m == nil {
		return api.Task{}, &api.Error{Code: api.CodeNotFound, Detail: "no such VM"}
	}
	return call(m, func() (api.Task, error) {
		spec := m.rec.VM.Spec
		switch place := placeOf(spec, d); {
		case verb == api.VerbAttachNIC:
			one := api.VMSpec{NICs: []api.NICSpec{*d.NIC}}
			giveAddresses(&one)
			d.NIC = &one.NICs[0]
		case verb == api.VerbDetachDisk && place >= 0:
			d.Disk = &spec.Disks[place]
		case verb == api.VerbDetachNIC && place >= 0:
			d.NIC = &spec.NICs[place]
		}
		return m.ask(ctx, verb, target{device: &d}, 0)
	})
}

// admitDevice is the check of a device that is to come or to go.
func (m *machine) admitDevice(kind api.TaskKind, d api.Device) error {
	spec := m.rec.VM.Spec
	place := placeOf(spec, d)
	if isAttach(kind) {
		return m.admitComing(with(spec, d), place, d)
	}
	if place < 0 {
		e := &api.Error{Code: api.CodeNotFound, Field: "body.path", Detail: "the VM has no such disk"}
		if d.NIC != nil {
			e.Field, e.Detail = "body.mac", "the VM has no such network card"
		}
		return e
	}
	if d.NIC != nil {
		if m.up() && slices.ContainsFunc(spec.NICs[place+1:], func(n api.NICSpec) bool { return n.MAC == d.NIC.MAC }) {
			return &api.Error{Code: api.CodeNetworkInvalid, Field: "body.mac", Detail: "more than one network card has that address"}
		}
		return nil
	}
	if _, snapshots := spec.Disks[place].Named(); snapshots > 0 {
		return &api.Error{Code: api.CodeDiskInvalid, Field: "body.path", Detail: "the disk has snapshots, whose files would be lost"}
	}
	// Their disks may have other places then.
	isBehind := func(t api.Task) bool { return isOfDisk(t.Kind) && *t.Disk >= place }
	if m.queue.Any(isBehind) || m.active != nil && isBehind(m.active.task) {
		return &api.Error{Code: api.CodeStateConflict, Detail: "a snapshot or a merge of a disk is to be done before"}
	}
	return inBody(checkSpec(without(spec, false, place)), spec)
}

// admitComing looks at a spec that a device was added to.
func (m *machine) admitComing(spec api.VMSpec, place int, d api.Device) error {
	err := checkSpec(spec)
	if err == nil {
		err = checkOwn(m.rec.VM.Spec.Disks, spec.Disks)
	}
	switch {
	case err != nil:
		return inBody(err, spec)
	case d.Disk != nil && place >= 0: // with snapshots
		return &api.Error{Code: api.CodeDiskInvalid, Field: "body.disk.path", Detail: fmt.Sprintf("%q is a disk of this VM already", d.Disk.Path)}
	case d.NIC != nil && place >= 0:
		return &api.Error{Code: api.CodeNetworkInvalid, Field: "body.nic.mac", Detail: "a network card of the VM has that address"}
	case d.NIC != nil:
		if err := m.inv.network.Check(*d.NIC); err != nil {
			return inBody(networkError(len(spec.NICs)-1, err), spec)
		}
		return nil
	}
	var f Files
	defer f.Close()
	return m.inv.openDisk(&f, "body.disk", *d.Disk)
}

// inBody names in an error about a spec the field of the body that the last device of it
// is in.
func inBody(err error, spec api.VMSpec) error {
	var e *api.Error
	if !errors.As(err, &e) {
		return err
	}
	told := *e
	for list, last := range map[string]int{"disk": len(spec.Disks) - 1, "nic": len(spec.NICs) - 1} {
		if rest, ok := strings.CutPrefix(e.Field, fmt.Sprintf("body.spec.%ss[%d]", list, last)); ok {
			told.Field = "body." + list + rest
		}
	}
	return &told
}

// beginDevice is what all four tasks begin with. ready says that a run is to be changed.
func (m *machine) beginDevice() (ready bool) {
	m.progress(0, false)
	t := m.active.task
	err := m.admitDevice(t.Kind, *t.Device)
	switch {
	case err != nil: // an earlier task changed it
	case m.rec.Scrap != nil || m.rec.Plugged != nil && m.rec.Plugged.Coming != nil:
		err = &api.Error{Code: api.CodeUnavailable, Detail: "what an earlier task left is not cleared away yet"}
	case !m.up():
		m.become(m.changedBy(t))
		m.endPlug(func(api.TaskKind) bool { return true }, nil)
		return false
	case m.mon == nil || m.deaf || m.handle == nil:
		err = &api.Error{Code: api.CodeMonitorFailed, Detail: "no connection to the monitor"}
	default:
		return true
	}
	m.finish(err)
	return false
}

// changedBy is the spec that a task makes of that of a VM which is off.
func (m *machine) changedBy(t api.Task) api.VMSpec {
	if isAttach(t.Kind) {
		return with(m.rec.VM.Spec, *t.Device)
	}
	return without(m.rec.VM.Spec, t.Device.NIC != nil, placeOf(m.rec.VM.Spec, *t.Device))
}

// become takes another spec.
func (m *machine) become(spec api.VMSpec) {
	m.rec.VM.Spec = spec
	m.rec.VM.Generation++
	m.rec.VM.UpdatedAt = m.inv.now()
}

// isToCome and isToLeave report whether a task of an earlier daemon's is to begin once more:
// it had done nothing.
func (m *machine) isToCome(t api.Task) bool {
	if !isAttach(t.Kind) {
		return false
	}
	p := m.rec.Plugged
	return p == nil || p.Coming == nil || !sameDevice(p.Coming.Device, *t.Device)
}

func (m *machine) isToLeave(t api.Task) bool {
	return isDetach(t.Kind) && !slices.ContainsFunc(m.leavers(), func(l leaver) bool {
		return l.isNIC == (t.Device.NIC != nil) && l.place == placeOf(m.rec.VM.Spec, *t.Device)
	})
}

func (m *machine) beginAttach() {
	if !m.beginDevice() {
		return
	}
	run := m.rec.VM.Status.RunID
	m.step(func(ctx context.Context) func() {
		has, err := m.inv.kernel.Attached(ctx, run)
		err = coded(api.CodeKernelFailed, "device-get", err)
		return func() {
			switch {
			case m.closing:
				return // the next daemon begins once more
			case m.active.abort != nil:
				err = m.active.abort
			case err == nil && !m.up():
				err = &api.Error{Code: api.CodeStateConflict, Detail: "the VM stopped"}
			}
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
			switch {
			case m.closing:
				return // the next daemon begins once more
			case m.active.abort != nil:
				err = m.active.abort
			case err == nil && !m.up():
				err = &api.Error{Code: api.CodeStateConflict, Detail: "the VM stopped"}
			}
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
