// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"errors"
	"slices"
	"strconv"

	"vmctl/monitor/legacy"
	"vmctl/monitor/spec"
)

var (
	// ErrFull is a machine that has as many disks or network cards as there can be.
	ErrFull = errors.New("the machine has no room for another such device")
	// ErrTwice is a backend that is a device of the machine already.
	ErrTwice = errors.New("the backend is a device of the machine already")
)

// Devices come and go as ACPI has it: a bit in legacy.Slots says to our own AML which
// slot it is about, and a system that knows nothing of that finds a new device when it
// boots again, and lets go of an old one then.

// AttachDisk puts a disk into a machine that runs, and returns its number. Rings cannot
// be made any more: threads do its work. errors.Is: ErrFull, ErrTwice, those of New.
func (m *Machine) AttachDisk(s spec.Disk) (uint8, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range m.disks {
		if d != nil && slices.Contains(d.chain, s.Backend) {
			return 0, ErrTwice
		}
	}
	n := free(m.disks)
	if n == spec.MaxDisks {
		return 0, ErrFull
	}
	m.disks = room(m.disks, n)
	if err := m.addDisk(n, s); err != nil {
		return 0, err
	}
	m.spec.Disks = room(m.spec.Disks, n)
	m.spec.Disks[n] = s
	m.came(m.disks[n].port)
	return uint8(n), nil
}

// AttachNIC puts a network card into a machine that runs, and returns its number.
// errors.Is: ErrFull, ErrTwice, those of New.
func (m *Machine) AttachNIC(s spec.NIC) (uint8, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range m.nics {
		if n != nil && n.backend == s.Backend {
			return 0, ErrTwice
		}
	}
	n := free(m.nics)
	if n == spec.MaxNICs {
		return 0, ErrFull
	}
	m.nics = room(m.nics, n)
	if err := m.addNIC(n, s); err != nil {
		return 0, err
	}
	m.spec.NICs = room(m.spec.NICs, n)
	m.spec.NICs[n] = s
	m.came(m.nics[n].port)
	return uint8(n), nil
}

func (m *Machine) came(d *device) {
	m.slots.Came(d.slot)
	m.pm.Raise(legacy.EventSlots)
}

// DetachDisk asks the guest to let go of a disk. Until it does, which Config.Detached
// tells, or is reset, the disk works, but has no other change. errors.Is: ErrNoDisk,
// ErrMerging.
func (m *Machine) DetachDisk(n uint8) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if int(n) >= len(m.disks) || m.disks[n] == nil {
		return ErrNoDisk
	}
	d := m.disks[n]
	if d.merge != nil {
		return ErrMerging
	}
	m.leave(d.port)
	return nil
}

// DetachNIC asks the guest to let go of a network card, likewise. errors.Is: ErrNoNIC.
func (m *Machine) DetachNIC(n uint8) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if int(n) >= len(m.nics) || m.nics[n] == nil {
		return ErrNoNIC
	}
	m.leave(m.nics[n].port)
	return nil
}

func (m *Machine) leave(d *device) {
	d.leaving = true
	m.slots.Leave(d.slot)
	m.pm.Raise(legacy.EventSlots)
}

// eject is called when the guest has let go of what is in slots. What nobody asked it to
// let go of stays: it finds it again when it looks.
func (m *Machine) eject(slots uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.remove(func(d *device) bool { return d.leaving && slots&(1<<d.slot) != 0 })
}

func (m *Machine) remove(out func(*device) bool) {
	m.devices = slices.DeleteFunc(m.devices, func(d *device) bool {
		if !out(d) {
			return false
		}
		m.pci.Remove(d.slot)
		_ = d.close() // of files that are read from no more: nothing is lost
		d.gone()
		return true
	})
}

// addDisk makes a disk of its backends and puts it into the machine.
func (m *Machine) addDisk(n int, s spec.Disk) error {
	d, err := m.openDisk(s)
	if err != nil {
		return err
	}
	if d.port, err = m.plug("disk"+strconv.Itoa(n), d.dev); err != nil {
		return err
	}
	d.port.gone = func() {
		m.disks[n], m.spec.Disks[n] = nil, spec.Disk{}
		m.onGone(false, uint8(n))
	}
	m.disks[n] = d
	return nil
}

// addNIC makes a network card of its backend and puts it into the machine.
func (m *Machine) addNIC(n int, s spec.NIC) error {
	dev, err := m.openNIC(s)
	if err != nil {
		return err
	}
	c := &nic{dev: dev, backend: s.Backend}
	if c.port, err = m.plug("nic"+strconv.Itoa(n), dev); err != nil {
		return err
	}
	c.port.gone = func() {
		m.nics[n], m.spec.NICs[n] = nil, spec.NIC{}
		m.onGone(true, uint8(n))
	}
	m.nics[n] = c
	return nil
}

// free is the lowest number that nothing of a list has.
func free[T any](list []*T) int {
	if n := slices.Index(list, nil); n >= 0 {
		return n
	}
	return len(list)
}

// room is a list that has a place of that number.
func room[T any](list []T, n int) []T {
	if n == len(list) {
		list = append(list, *new(T))
	}
	return list
}

// disk is one that can be changed.
func (m *Machine) disk(n uint8) (*disk, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if int(n) >= len(m.disks) || m.disks[n] == nil || m.disks[n].port.leaving {
		return nil, ErrNoDisk
	}
	return m.disks[n], nil
}

// nic is one that can be changed.
func (m *Machine) nic(n uint8) (*nic, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if int(n) >= len(m.nics) || m.nics[n] == nil || m.nics[n].port.leaving {
		return nil, ErrNoNIC
	}
	return m.nics[n], nil
}
