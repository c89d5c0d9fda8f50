// SPDX-License-Identifier: Apache-2.0

package launchtest

import (
	"slices"

	"golang.org/x/sys/unix"

	"vmctl/abi"
	"vmctl/monitor/ctl"
	"vmctl/monitor/spec"
)

// nic is what the stub has of a network card.
type nic struct {
	backend uint32
	parts   []abi.Part
	leaving bool
}

// free is the lowest number that nothing of a list has.
func free[T any](list *[]*T) int {
	n := slices.Index(*list, nil)
	if n < 0 {
		n = len(*list)
		*list = append(*list, nil)
	}
	return n
}

// attachDisk is called with mu.
func (s *stub) attachDisk(r *ctl.AttachDisk) (ctl.Message, *ctl.Error) {
	if e := s.mayAttach(); e != nil {
		return nil, e
	}
	made, ok := s.openDisk(r.Disk)
	if !ok {
		return nil, &ctl.Error{Code: ctl.DiskInvalid, Text: "no such disk is attached to the VM"}
	}
	n := free(&s.disks)
	s.disks[n] = made
	return s.attached(r, n)
}

// attachNIC is called with mu.
func (s *stub) attachNIC(r *ctl.AttachNIC) (ctl.Message, *ctl.Error) {
	if e := s.mayAttach(); e != nil {
		return nil, e
	}
	b, err := s.vm.Backend(r.NIC.Backend)
	if err != nil || b.Number != r.NIC.Backend || b.Kind != abi.BackendNIC {
		return nil, &ctl.Error{Code: ctl.NICInvalid, Text: "no such network card is attached to the VM"}
	}
	n := free(&s.nics)
	s.nics[n] = &nic{backend: b.Number, parts: b.Parts}
	return s.attached(r, n)
}

func (s *stub) mayAttach() *ctl.Error {
	switch {
	case s.state != ctl.Running:
		return &ctl.Error{Code: ctl.StateConflict, Text: "no guest runs"}
	case s.behaviour == Full:
		return &ctl.Error{Code: ctl.LimitExceeded, Text: "the machine has no room for another such device"}
	case s.behaviour == Ignores && s.first():
		s.hang()
	}
	return nil
}

func (s *stub) attached(r ctl.Message, n int) (ctl.Message, *ctl.Error) {
	if s.behaviour == Takes && s.first() {
		s.hang()
	}
	return ctl.AttachedWith(r, uint8(n)), nil
}

// detach asks the guest, which lets go at once unless it is said to be another. Called
// with mu.
func (s *stub) detach(r *ctl.Detach) *ctl.Error {
	n := int(r.Number)
	switch {
	case r.IsNIC && (n >= len(s.nics) || s.nics[n] == nil):
		return &ctl.Error{Code: ctl.NICInvalid, Text: "the machine has no such network card"}
	case !r.IsNIC && (n >= len(s.disks) || s.disks[n] == nil):
		return &ctl.Error{Code: ctl.DiskInvalid, Text: "the machine has no such disk"}
	case s.behaviour == Bound:
		return &ctl.Error{Code: ctl.MergeInvalid, Text: "the disk is being merged"}
	case r.IsNIC:
		s.nics[n].leaving = true
	default:
		s.disks[n].leaving = true
	}
	if s.behaviour == Clings || s.behaviour == Keeps && s.first() {
		return nil
	}
	events := s.letGo()
	if s.behaviour == Drops && s.first() {
		s.hang() // and nobody hears of it
	}
	go func() {
		for _, e := range events {
			s.tell(e)
		}
	}()
	return nil
}

// letGo is the guest's. Called with mu.
func (s *stub) letGo() (events []ctl.Message) {
	closeAll := func(backend uint32, parts []abi.Part) {
		for _, p := range parts {
			unix.Close(p.FD) // nothing was written
		}
		s.vm.GiveBack(backend) // stopped meanwhile is as good
	}
	for n, d := range s.disks {
		if d != nil && d.leaving {
			for backend, parts := range d.files {
				closeAll(backend, parts)
			}
			s.disks[n] = nil
			events = append(events, &ctl.Detached{Number: uint8(n)})
		}
	}
	for n, c := range s.nics {
		if c != nil && c.leaving {
			closeAll(c.backend, c.parts)
			s.nics[n] = nil
			events = append(events, &ctl.Detached{IsNIC: true, Number: uint8(n)})
		}
	}
	return events
}

// setNIC is called with mu.
func (s *stub) setNIC(r *ctl.SetNIC) *ctl.Error {
	if n := int(r.NIC); n >= len(s.nics) || s.nics[n] == nil || s.nics[n].leaving {
		return &ctl.Error{Code: ctl.NICInvalid, Text: "the machine has no such network card"}
	}
	return nil
}

// addNICs is called with mu.
func (s *stub) addNICs(all []spec.NIC) {
	for _, n := range all {
		if n.None() {
			s.nics = append(s.nics, nil)
			continue
		}
		s.nics = append(s.nics, &nic{backend: n.Backend})
	}
}
