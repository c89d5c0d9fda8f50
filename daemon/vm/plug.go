// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

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

// cutShort is the error of a step of the active task, whose run may have been ended.
func (m *machine) cutShort(err error) error {
	switch {
	case m.active.abort != nil:
		return m.active.abort
	case err == nil && !m.up():
		return &api.Error{Code: api.CodeStateConflict, Detail: "the VM stopped"}
	}
	return err
}
