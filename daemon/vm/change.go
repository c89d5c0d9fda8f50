// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"vmctl/daemon/api"
)

// Change gives the VM with that uuid another name and spec, if it has that generation. The
// error is an *api.Error, and nothing is changed then; but of devices that were to change
// while the guest runs, some may have: the next change says again what they are to be, and
// so does the next daemon.
func (inv *Inventory) Change(ctx context.Context, id string, generation int64, name string, spec api.VMSpec) (api.VM, error) {
	m := inv.machine(id)
	if m == nil {
		return api.VM{}, &api.Error{Code: api.CodeNotFound, Detail: "no such VM"}
	}
	if !api.ValidName(name) {
		return api.VM{}, &api.Error{Code: api.CodeNameInvalid, Field: "body.name", Detail: "not a name of lower-case letters, digits and inner hyphens"}
	}
	if err := checkSpec(spec); err != nil {
		return api.VM{}, err
	}
	return await(m, func(reply func(api.VM, error)) { m.change(ctx, generation, name, spec, reply) })
}

// SetBalloon is Change of nothing but the balloon, of whatever generation.
func (inv *Inventory) SetBalloon(ctx context.Context, id string, bytes int64) (api.VM, error) {
	m := inv.machine(id)
	if m == nil {
		return api.VM{}, &api.Error{Code: api.CodeNotFound, Detail: "no such VM"}
	}
	return await(m, func(reply func(api.VM, error)) {
		vm := m.rec.VM
		vm.Spec.BalloonBytes = bytes
		if err := checkBalloon(vm.Spec, "body."); err != nil {
			reply(api.VM{}, err)
			return
		}
		m.change(ctx, vm.Generation, vm.Name, vm.Spec, reply)
	})
}

// change takes a change in. reply is called once, in the loop.
func (m *machine) change(ctx context.Context, generation int64, name string, spec api.VMSpec, reply func(api.VM, error)) {
	keepAddresses(m.rec.VM.Spec, &spec)
	keepSnapshots(m.rec.VM.Spec.Disks, spec.Disks)
	err := m.mayChange(generation, name, spec)
	if err != nil {
		reply(api.VM{}, err)
		return
	}
	if name == m.rec.VM.Name && reflect.DeepEqual(spec, m.rec.VM.Spec) {
		reply(m.rec.VM, nil)
		return
	}
	if !m.up() {
		reply(m.changed(ctx, name, spec))
		return
	}
	m.changing = true
	mon, plugged := m.mon, m.plugged()
	m.work(func() func() {
		ctx, cancel := context.WithTimeout(m.ctx, callTimeout)
		defer cancel()
		err := adjust(ctx, mon, spec, plugged)
		return func() {
			m.changing = false
			if err != nil {
				reply(api.VM{}, coded(api.CodeMonitorFailed, "change", err))
				return
			}
			reply(m.changed(ctx, name, spec))
		}
	})
}

func (m *machine) mayChange(generation int64, name string, spec api.VMSpec) error {
	conflict := func(format string, args ...any) error {
		return &api.Error{Code: api.CodeStateConflict, Detail: fmt.Sprintf(format, args...)}
	}
	vm := m.rec.VM
	switch {
	case m.closing || m.deleted:
		return errGone(m)
	case generation != vm.Generation:
		return &api.Error{Code: api.CodePreconditionFailed, Detail: fmt.Sprintf("the VM has generation %d", vm.Generation)}
	case m.active != nil || m.queue.Len() > 0 || m.changing || m.settling || m.rec.Scrap != nil || m.rec.Plugged != nil && m.rec.Plugged.Coming != nil:
		return conflict("something else is being done with the VM")
	case m.state() != api.StateOff && !m.up():
		return conflict("no change is possible while the VM is %s", m.state())
	case m.up() && name != vm.Name:
		return conflict("the name cannot change while the VM is %s", m.state())
	case m.up() || vm.Status.Saved != nil:
		if field := firmField(vm.Spec, spec); field != "" {
			state := string(m.state())
			if vm.Status.Saved != nil {
				state = "saved"
			}
			return conflict("%s cannot change while the VM is %s: only balloonBytes, onPoweroff, onCrash, limits and links can", field, state)
		}
		if m.up() && (m.mon == nil || m.deaf) {
			return &api.Error{Code: api.CodeMonitorFailed, Detail: "no connection to the monitor"}
		}
		return nil
	}
	if err := checkOwn(vm.Spec.Disks, spec.Disks); err != nil {
		return err
	}
	return m.inv.check(spec)
}

// firmField names a field that differs and that a guest cannot see changed; "": none does.
func firmField(a, b api.VMSpec) string {
	a, b = firm(a), firm(b)
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	for i := range x.NumField() {
		if !reflect.DeepEqual(x.Field(i).Interface(), y.Field(i).Interface()) {
			name, _, _ := strings.Cut(x.Type().Field(i).Tag.Get("json"), ",")
			return name
		}
	}
	return ""
}

// firm is a spec without what can change under a guest.
func firm(s api.VMSpec) api.VMSpec {
	s.BalloonBytes, s.OnPoweroff, s.OnCrash = 0, "", ""
	s.Disks, s.NICs = slices.Clone(s.Disks), slices.Clone(s.NICs)
	for i := range s.Disks {
		s.Disks[i].Limit = nil
	}
	for i := range s.NICs {
		n := &s.NICs[i]
		n.ReceiveLimit, n.SendLimit, n.LinkDown = nil, nil, false
	}
	return s
}

// keepAddresses lets a network card that is given without an address keep that of the one
// that was there.
func keepAddresses(old api.VMSpec, spec *api.VMSpec) {
	for i := range spec.NICs[:min(len(spec.NICs), len(old.NICs))] {
		if spec.NICs[i].MAC == "" {
			spec.NICs[i].MAC = old.NICs[i].MAC
		}
	}
}

// keepSnapshots lets a disk that is given as it was named keep its snapshots.
func keepSnapshots(old, disks []api.DiskSpec) {
	for i := range disks[:min(len(disks), len(old))] {
		d, was := &disks[i], old[i]
		if named, snapshots := was.Named(); snapshots > 0 && sameFiles(named, *d) {
			d.Path, d.Format, d.Own, d.Backing = was.Path, was.Format, was.Own, was.Backing
		}
	}
}

// adjust makes the devices of a guest that runs as a spec has them. Those that are so
// notice nothing; those that leave stay as they are.
func adjust(ctx context.Context, mon Monitor, spec api.VMSpec, p Plugged) error {
	if err := mon.SetBalloon(ctx, spec.BalloonBytes); err != nil {
		return err
	}
	for i, d := range spec.Disks {
		if p.Disks[i].Leaving {
			continue
		}
		if err := mon.SetDisk(ctx, p.Disks[i].Number, d); err != nil {
			return err
		}
	}
	for i, n := range spec.NICs {
		if p.NICs[i].Leaving {
			continue
		}
		if err := mon.SetNIC(ctx, p.NICs[i].Number, n); err != nil {
			return err
		}
	}
	return nil
}

// readjust lets the monitor of an earlier daemon hear the record, which that daemon may have
// been about to change.
func (m *machine) readjust() {
	mon, spec, plugged := m.mon, m.rec.VM.Spec, m.plugged()
	if mon == nil {
		return
	}
	m.changing = true
	m.work(func() func() {
		ctx, cancel := context.WithTimeout(m.ctx, callTimeout)
		defer cancel()
		err := adjust(ctx, mon, spec, plugged)
		return func() {
			m.changing = false
			if err != nil {
				m.log.Warn("devices may have other limits than the record", "op", "restore", "err", err)
			}
		}
	})
}

// changed records a change.
func (m *machine) changed(ctx context.Context, name string, spec api.VMSpec) (api.VM, error) {
	giveAddresses(&spec)
	rec := m.rec
	rec.VM.Name, rec.VM.Spec = name, spec
	rec.VM.Generation++
	rec.VM.UpdatedAt = m.inv.now()
	err := m.inv.store.Update(context.WithoutCancel(ctx), func(tx Tx) error {
		if err := tx.Change(&rec); err != nil {
			return err
		}
		return errors.Join(tx.Event(api.EventVMChanged, &api.VMRef{ID: rec.VM.ID, Name: name}, rec.VM), tx.Answer(rec.VM))
	})
	if err != nil {
		return api.VM{}, err
	}
	m.rec = rec
	return rec.VM, nil
}
