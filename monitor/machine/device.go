// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"errors"
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"vmctl/abi"
	"vmctl/monitor/spec"
	"vmctl/monitor/virtio"
	"vmctl/monitor/virtio/balloon"
	"vmctl/monitor/virtio/console"
	"vmctl/monitor/virtio/net"
	"vmctl/monitor/virtio/rng"
)

// device is a virtio device in its slot.
type device struct {
	*virtio.Transport
	messages *messages
	slot     int
	leaving  bool
	gone     func()      // is called, with Machine.mu, when it is out of the machine, of one that can leave
	told     atomic.Bool // that it is broken, since the guest's last reset
}

// fixed are the devices that do not come and go; nil: the machine has none.
type fixed struct{ rng, console, balloon, vsock *device }

// place is where a device of a machine was that was saved.
type place struct {
	slot    uint8
	leaving bool
}

// nic is a network card and where it is.
type nic struct {
	dev     *net.Device
	port    *device
	backend uint32
}

// SetNIC changes limits and link of a network card of a running machine. errors.Is: ErrNoNIC.
func (m *Machine) SetNIC(n uint8, o net.Options) error {
	c, err := m.nic(n)
	if err != nil {
		return err
	}
	if c.dev.Options() == o {
		return nil
	}
	return c.port.Alter(func() error {
		c.dev.Set(o)
		return nil
	})
}

// addVirtio puts the devices on the bus, always in the same order, so that a guest
// finds them in the same slots.
func (m *Machine) addVirtio() (err error) {
	if m.fixed.rng, err = m.plug("rng", rng.New()); err != nil {
		return err
	}
	if m.spec.Console == spec.Virtio {
		m.hvc = console.New(m.output.Put, m.output.Room)
		if m.fixed.console, err = m.plug("console", m.hvc); err != nil {
			return err
		}
	}
	m.disks, m.nics = make([]*disk, len(m.spec.Disks)), make([]*nic, len(m.spec.NICs))
	for i, d := range m.spec.Disks {
		if d.None() {
			continue
		}
		if err := m.addDisk(i, d); err != nil {
			return err
		}
	}
	for i, n := range m.spec.NICs {
		if n.None() {
			continue
		}
		if err := m.addNIC(i, n); err != nil {
			return err
		}
	}
	m.balloon = balloon.New(m.memory)
	if m.fixed.balloon, err = m.plug("balloon", m.balloon); err != nil {
		return err
	}
	if m.vsock != nil {
		m.fixed.vsock, err = m.plug("vsock", m.vsock)
	}
	return err
}

// inOrder are the devices in the order of addVirtio.
func (m *Machine) inOrder() []*device {
	list := []*device{m.fixed.rng, m.fixed.console}
	for _, d := range m.disks {
		if d != nil {
			list = append(list, d.port)
		}
	}
	for _, n := range m.nics {
		if n != nil {
			list = append(list, n.port)
		}
	}
	list = append(list, m.fixed.balloon, m.fixed.vsock)
	return slices.DeleteFunc(list, func(d *device) bool { return d == nil })
}

var (
	// ErrNIC is a network card whose backend is not there, or is none of one tap.
	ErrNIC = errors.New("no such network card is attached to the VM")
	// ErrNoNIC is a number that no network card of the machine has.
	ErrNoNIC = errors.New("the machine has no such network card")
)

// take takes the files of a backend from the kernel, which knows whose they are, if
// they have these roles in this order. errors.Is: unix.ENOENT when they have not.
func (m *Machine) take(number uint32, kind abi.BackendKind, roles ...abi.Role) ([]int, error) {
	b, err := m.vm.Backend(number)
	if err != nil {
		return nil, err
	}
	fds := make([]int, len(b.Parts))
	fits := b.Number == number && b.Kind == kind && len(fds) == len(roles)
	for i, p := range b.Parts {
		fds[i] = p.FD
		fits = fits && p.FD >= 0 && p.Role == roles[i]
	}
	if !fits {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return nil, unix.ENOENT
	}
	return fds, nil
}

func (m *Machine) openNIC(n spec.NIC) (*net.Device, error) {
	const noVhost = -1
	fds, err := m.take(n.Backend, abi.BackendNIC, abi.RoleTap, abi.RoleVhost)
	if errors.Is(err, unix.ENOENT) {
		fds, err = m.take(n.Backend, abi.BackendNIC, abi.RoleTap)
		fds = append(fds, noVhost)
	}
	if errors.Is(err, unix.ENOENT) {
		return nil, ErrNIC
	}
	if err != nil {
		return nil, err
	}
	return net.Open(fds[0], fds[1], n.MAC, m.memory, net.Options{Receive: n.Receive, Send: n.Send, Down: n.Down})
}

// plug puts one device into the lowest free slot, or where it was when it was saved. It
// takes the device over.
func (m *Machine) plug(name string, dev virtio.Device) (*device, error) {
	d := &device{messages: m.routes.newMessages(dev.Kind().Queues + 1)}
	t, function, err := virtio.NewTransport(dev, virtio.Env{
		Memory: m.memory, Messages: d.messages, Doorbell: m.doorbell,
		Broken: func(err error) {
			if !d.told.Swap(true) {
				m.onBroken(name, err)
			}
		},
	})
	if err != nil {
		return nil, errors.Join(err, d.messages.close())
	}
	d.Transport = t
	if len(m.places) > 0 {
		d.slot, d.leaving = int(m.places[0].slot), m.places[0].leaving
		err = m.pci.AddAt(d.slot, function)
		m.places = m.places[1:]
	} else {
		d.slot, err = m.pci.Add(function)
	}
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	m.devices = append(m.devices, d)
	return d, nil
}

func (d *device) close() error { return errors.Join(d.Close(), d.messages.close()) }

// doorbell lets writes of any size to an address ring an eventfd.
func (m *Machine) doorbell(addr uint64, fd int, on bool) error {
	door := abi.KVMIOEventFD{Addr: addr, FD: int32(fd)}
	if !on {
		door.Flags = abi.KVMIOEventFDFlagDeassign
	}
	return m.vm.MapMMIO(door)
}

// settle takes all devices back to power-on, when they have done what the guest
// asked for; it lets go of those that it was asked to. All processors are parked.
func (m *Machine) settle() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.remove(func(d *device) bool { return d.leaving })
	m.pci.Reset()
	for _, d := range m.devices {
		d.told.Store(false)
	}
}

func (m *Machine) closeDevices() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for _, d := range m.disks {
		if d != nil {
			d.halt()
		}
	}
	for _, d := range m.devices {
		errs = append(errs, d.close())
	}
	m.devices, m.disks, m.nics = nil, nil, nil
	return errors.Join(errs...)
}
