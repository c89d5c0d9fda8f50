// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"encoding/binary"
	"errors"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// Pins of the in-kernel chips. The numbers behind them are those of messages.
const (
	picPins    = 8
	ioapicPins = 24
)

// routes is the table of interrupt routes, which the kernel takes as a whole: the
// chips' pins first, then a message for each vector in use.
type routes struct {
	vm *abi.VM

	mu    sync.Mutex // guards what follows
	table []abi.KVMIRQRoutingEntry
	next  uint32 // number that no vector ever had
	freed []span // of numbers
}

// span is some numbers from one on.
type span struct {
	first uint32
	n     int
}

func newRoutes(vm *abi.VM) *routes {
	r := &routes{vm: vm, next: ioapicPins}
	for pin := range uint32(ioapicPins) {
		switch {
		case pin < picPins:
			r.table = append(r.table, abi.RouteIRQChip(pin, abi.KVMIRQChipPICMaster, pin))
		case pin < 2*picPins:
			r.table = append(r.table, abi.RouteIRQChip(pin, abi.KVMIRQChipPICSlave, pin-picPins))
		}
		r.table = append(r.table, abi.RouteIRQChip(pin, abi.KVMIRQChipIOAPIC, pin))
	}
	return r
}

// set lets a number stand for a message. The guest chose it: one that the kernel
// refuses leaves the table as it was.
func (r *routes) set(gsi uint32, addr uint64, data uint32) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, at := abi.RouteMSI(gsi, addr, data), len(r.table)
	for i := range r.table {
		if r.table[i].GSI == gsi {
			at = i
		}
	}
	if at == len(r.table) {
		r.table = append(r.table, abi.KVMIRQRoutingEntry{})
	}
	old := r.table[at]
	r.table[at] = e
	err := r.vm.SetRoutes(r.table)
	if err != nil && old == (abi.KVMIRQRoutingEntry{}) {
		r.table = r.table[:at]
	} else if err != nil {
		r.table[at] = old
	}
	return err
}

// messages are the vectors of one device. Each that the guest uses has an eventfd
// by which it is sent.
type messages struct {
	routes *routes
	first  uint32

	mu  sync.Mutex // guards fds
	fds []int      // 0: none yet
}

// newMessages keeps numbers for n vectors.
func (r *routes) newMessages(n int) *messages {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, s := range r.freed {
		if s.n == n {
			r.freed = slices.Delete(r.freed, i, i+1)
			return &messages{routes: r, first: s.first, fds: make([]int, n)}
		}
	}
	m := &messages{routes: r, first: r.next, fds: make([]int, n)}
	r.next += uint32(n)
	return m
}

// forget takes the numbers of some vectors back.
func (r *routes) forget(first uint32, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.table = slices.DeleteFunc(r.table, func(e abi.KVMIRQRoutingEntry) bool { return e.GSI >= first && e.GSI < first+uint32(n) })
	_ = r.vm.SetRoutes(r.table) // what it keeps of them nobody sends by
	r.freed = append(r.freed, span{first, n})
}

// Route lets a vector send a message, and reports whether it does. One that cannot
// be had is the guest's loss alone: it chose the message.
func (m *messages) Route(vector int, addr uint64, data uint32) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	gsi := m.first + uint32(vector)
	if m.routes.set(gsi, addr, data) != nil {
		return false
	}
	if m.fds[vector] != 0 {
		return true
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return false
	}
	if m.routes.vm.MapIRQ(abi.KVMIRQFD{FD: uint32(fd), GSI: gsi}) != nil {
		unix.Close(fd)
		return false
	}
	m.fds[vector] = fd
	return true
}

var one = binary.NativeEndian.AppendUint64(nil, 1)

// Send sends it.
func (m *messages) Send(vector int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if fd := m.fds[vector]; fd != 0 {
		_, _ = unix.Write(fd, one) // fails only when it is sent already
	}
}

// File is the eventfd of a vector that has a route.
func (m *messages) File(vector int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fds[vector]
}

func (m *messages) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for i, fd := range m.fds {
		if fd != 0 {
			errs = append(errs, unix.Close(fd))
			m.fds[i] = 0
		}
	}
	m.routes.forget(m.first, len(m.fds))
	return errors.Join(errs...)
}
