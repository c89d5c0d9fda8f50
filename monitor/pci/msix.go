// SPDX-License-Identifier: Apache-2.0

package pci

import (
	"slices"
	"sync"
)

// MSI-X (PCI 3.0, 6.8.2).
const (
	capMSIX      = 0x11
	msixBody     = 10
	msixEnable   = 1 << 15
	msixMaskAll  = 1 << 14
	msixEntry    = 16 // bytes
	msixMasked   = 1 << 0
	msixDataWord = 2
	msixCtrlWord = 3

	// MaxVectors is what fits into the table that MSIX answers for.
	MaxVectors = 128
	// MSIXSize is how much of a BAR table and pending bits take.
	MSIXSize = 4096
	msixPBA  = 2048
)

// Messages sends interrupts.
type Messages interface {
	// Route says which message a vector sends from now on, and reports whether
	// that can be had.
	Route(vector int, addr uint64, data uint32) bool
	// Send sends it.
	Send(vector int)
	// File is the eventfd by which it is sent as well, of a vector that has a route.
	File(vector int) int
}

// MSIX is a table of interrupt vectors with their pending bits. Any goroutine
// may raise one.
type MSIX struct {
	out Messages

	mu      sync.Mutex // guards what follows
	table   [][4]uint32
	routed  [][3]uint32 // what out knows
	pending []bool
	control uint16
	ties    []*Tie
}

// Tie is of a vector that something else than Raise sends: who has the eventfd.
type Tie struct {
	m      *MSIX
	vector int
	fd     int
	tell   func(fd int)
}

// NoFile is what a Tie tells while its vector is masked or has no route: Raise is to be
// called then.
const NoFile = -1

// Tie tells from now on by which eventfd a vector is sent, or NoFile. tell must call
// nothing of the table's.
func (m *MSIX) Tie(vector int, tell func(fd int)) *Tie {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := &Tie{m: m, vector: vector, fd: NoFile, tell: tell}
	m.ties = append(m.ties, t)
	t.look()
	return t
}

// Move makes it one of another vector.
func (t *Tie) Move(vector int) {
	t.m.mu.Lock()
	defer t.m.mu.Unlock()
	t.vector = vector
	t.look()
}

// Cut ends it: it tells nothing more.
func (t *Tie) Cut() {
	t.m.mu.Lock()
	defer t.m.mu.Unlock()
	t.m.ties = slices.DeleteFunc(t.m.ties, func(o *Tie) bool { return o == t })
}

func (t *Tie) look() {
	fd := NoFile
	if t.vector < len(t.m.table) && t.m.open(t.vector) {
		fd = t.m.out.File(t.vector)
	}
	if fd != t.fd {
		t.fd = fd
		t.tell(fd)
	}
}

// AddMSIX gives the function n vectors, with their table in a BAR at offset:
// accesses to MSIXSize bytes from there go to the result. errors.Is: ErrFull.
func (f *Function) AddMSIX(n, bar int, offset uint32, out Messages) (*MSIX, error) {
	if n < 1 || n > MaxVectors {
		return nil, ErrFull
	}
	m := &MSIX{out: out, table: make([][4]uint32, n), routed: make([][3]uint32, n), pending: make([]bool, n)}
	body, writable := make([]byte, msixBody), make([]byte, msixBody)
	order.PutUint16(body, uint16(n-1))
	order.PutUint32(body[2:], offset|uint32(bar))
	order.PutUint32(body[6:], offset+msixPBA|uint32(bar))
	order.PutUint16(writable, msixEnable|msixMaskAll)
	m.Reset()
	f.msix = m
	_, err := f.AddCapability(capMSIX, body, writable, m)
	return m, err
}

// Reset masks and forgets everything.
func (m *MSIX) Reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.control = 0
	clear(m.pending)
	for i := range m.table {
		m.table[i] = [4]uint32{msixCtrlWord: msixMasked}
		m.settle(i)
	}
}

// Enabled reports whether the guest uses it.
func (m *MSIX) Enabled() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.control&msixEnable != 0
}

// Raise sends the message of a vector, or notes that it is to be sent.
func (m *MSIX) Raise(vector int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if vector < 0 || vector >= len(m.table) || m.control&msixEnable == 0 {
		return
	}
	m.pending[vector] = true
	m.settle(vector)
}

// settle sends what is pending and not masked.
func (m *MSIX) settle(vector int) {
	if m.open(vector) && m.pending[vector] {
		m.pending[vector] = false
		m.out.Send(vector)
	}
	for _, t := range m.ties {
		if t.vector == vector {
			t.look()
		}
	}
}

// open reports whether a vector is not masked, and has its route. Where that cannot be
// had its message stays pending, and is tried again.
func (m *MSIX) open(vector int) bool {
	e := &m.table[vector]
	if m.control&(msixEnable|msixMaskAll) != msixEnable || e[msixCtrlWord]&msixMasked != 0 {
		return false
	}
	want := [3]uint32(e[:3])
	if m.routed[vector] == want {
		return true
	}
	if !m.out.Route(vector, uint64(want[1])<<32|uint64(want[0]), want[msixDataWord]) {
		return false
	}
	m.routed[vector] = want
	return true
}

// Reading is nothing to do.
func (*MSIX) Reading([]byte, int, int) {}

// Written takes the bits that enable and mask all.
func (m *MSIX) Written(body []byte, _, _ int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.control = order.Uint16(body[capHead:])
	for v := range m.table {
		m.settle(v)
	}
}

// Read answers in the table or the pending bits, in aligned words of 4 or 8
// bytes.
func (m *MSIX) Read(offset uint64, data []byte) {
	if !aligned(offset, data) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := 0; i < len(data); i += 4 {
		order.PutUint32(data[i:], m.word(int(offset)+i))
	}
}

func (m *MSIX) word(offset int) (v uint32) {
	if i := offset / msixEntry; i < len(m.table) {
		return m.table[i][offset%msixEntry/4]
	}
	if offset < msixPBA {
		return 0
	}
	first := (offset - msixPBA) * 8
	for i := range 32 {
		if n := first + i; n < len(m.pending) && m.pending[n] {
			v |= 1 << i
		}
	}
	return v
}

// Write changes the table; pending bits are not the guest's to write.
func (m *MSIX) Write(offset uint64, data []byte) {
	if !aligned(offset, data) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := 0; i < len(data); i += 4 {
		vector, word := (int(offset)+i)/msixEntry, (int(offset)+i)%msixEntry/4
		if vector >= len(m.table) {
			return
		}
		v := order.Uint32(data[i:])
		switch word {
		case 0:
			v &^= 3 // an address of whole words
		case msixCtrlWord:
			v &= msixMasked
		}
		m.table[vector][word] = v
		m.settle(vector)
	}
}

// aligned reports whether an access is one that a driver may make.
func aligned(offset uint64, data []byte) bool {
	return (len(data) == 4 || len(data) == 8) && offset%uint64(len(data)) == 0 && offset+uint64(len(data)) <= MSIXSize
}
