// SPDX-License-Identifier: Apache-2.0

// Package bus takes an access of the guest to the device that answers there. A
// port space and a memory space are each a [Space]. Addresses, sizes and order
// are the guest's choice: what nobody answers reads as all ones and is written
// to nowhere, and no access can panic.
package bus

import "errors"

// ErrOverlap is a device that would lie over another, or over the end.
var ErrOverlap = errors.New("device overlaps another")

// Device answers accesses of 1 to 8 bytes, any odd size and any offset within
// its range included. Several vCPUs call it at the same time.
type Device interface {
	// Read fills data, which is all ones.
	Read(offset uint64, data []byte)
	Write(offset uint64, data []byte)
}

// Registers is a device of byte-wide registers, such as all of the ISA bus.
type Registers interface {
	In(reg uint8) uint8
	Out(reg uint8, v uint8)
}

type span struct {
	base, size uint64
	dev        Device
}

// Space is an address space. All devices are added before the guest runs.
type Space struct{ spans []span }

// Add lets dev answer at size bytes from base. errors.Is: ErrOverlap.
func (s *Space) Add(base, size uint64, dev Device) error {
	if size == 0 || base+size < base {
		return ErrOverlap
	}
	for _, o := range s.spans {
		if base < o.base+o.size && o.base < base+size {
			return ErrOverlap
		}
	}
	s.spans = append(s.spans, span{base, size, dev})
	return nil
}

// AddRegisters lets n byte-wide registers answer from base, n being 256 at most.
// A wider access is one to each register that it covers, in order.
func (s *Space) AddRegisters(base uint64, n int, dev Registers) error {
	if n > 256 {
		return ErrOverlap
	}
	return s.Add(base, uint64(n), registers{dev, n})
}

func (s *Space) find(addr uint64) *span {
	for i := range s.spans {
		if sp := &s.spans[i]; addr-sp.base < sp.size {
			return sp
		}
	}
	return nil
}

// Read answers a read of the guest by filling data.
func (s *Space) Read(addr uint64, data []byte) {
	for i := range data {
		data[i] = 0xff
	}
	if sp := s.find(addr); sp != nil {
		sp.dev.Read(addr-sp.base, data)
	}
}

// Write takes a write of the guest to its device.
func (s *Space) Write(addr uint64, data []byte) {
	if sp := s.find(addr); sp != nil {
		sp.dev.Write(addr-sp.base, data)
	}
}

// registers splits accesses into bytes and cuts them at the last register.
type registers struct {
	dev Registers
	n   int
}

func (r registers) Read(offset uint64, data []byte) {
	for i := range data {
		if reg := offset + uint64(i); reg < uint64(r.n) {
			data[i] = r.dev.In(uint8(reg))
		}
	}
}

func (r registers) Write(offset uint64, data []byte) {
	for i, v := range data {
		if reg := offset + uint64(i); reg < uint64(r.n) {
			r.dev.Out(uint8(reg), v)
		}
	}
}
