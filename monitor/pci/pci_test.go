// SPDX-License-Identifier: Apache-2.0

package pci_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"vmctl/monitor/bus"
	"vmctl/monitor/pci"
)

// ram is a device that is memory.
type ram [8192]byte

func (r *ram) Read(off uint64, p []byte)  { copy(p, r[off:]) }
func (r *ram) Write(off uint64, p []byte) { copy(r[off:], p) }

// machine is what a guest sees of the bus.
type machine struct {
	t             testing.TB
	host          *pci.Host
	ports, memory bus.Space
}

func newMachine(t testing.TB, functions ...*pci.Function) *machine {
	t.Helper()
	m := &machine{t: t, host: pci.NewHost()}
	for _, f := range functions {
		if _, err := m.host.Add(f); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.host.Attach(&m.ports, &m.memory); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *machine) outl(port uint64, v uint32) { m.ports.Write(port, le32(v)) }

// byPorts reads size bytes of a register of slot by ports.
func (m *machine) byPorts(slot, reg, size int) []byte {
	m.outl(pci.AddressPort, 1<<31|uint32(slot)<<11|uint32(reg&^3))
	data := make([]byte, size)
	m.ports.Read(pci.DataPort+uint64(reg&3), data)
	return data
}

func at(slot, reg int) uint64 { return pci.ECAMBase + uint64(slot)<<15 + uint64(reg) }

func (m *machine) read32(slot, reg int) uint32 {
	var b [4]byte
	m.memory.Read(at(slot, reg), b[:])
	return binary.LittleEndian.Uint32(b[:])
}

func (m *machine) write32(slot, reg int, v uint32) { m.memory.Write(at(slot, reg), le32(v)) }

func le32(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }

var anID = pci.ID{Vendor: 0x1af4, Device: 0x1044, SubVendor: 1, Subsystem: 2, Class: 0xff0001, Revision: 1}

func withBAR(t testing.TB, dev bus.Device) *pci.Function {
	t.Helper()
	f := pci.NewFunction(anID)
	if err := f.SetBAR(0, 8192, dev); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestPortsAndMemorySeeTheSame(t *testing.T) {
	m := newMachine(t, withBAR(t, new(ram)))
	for slot := range 3 {
		for reg := range 256 {
			for _, size := range []int{1, 2, 4} {
				if reg&3+size > 4 {
					continue
				}
				mem := make([]byte, size)
				m.memory.Read(at(slot, reg), mem)
				if port := m.byPorts(slot, reg, size); !bytes.Equal(port, mem) {
					t.Fatalf("slot %d register %#x: %x by ports, %x by memory", slot, reg, port, mem)
				}
			}
		}
	}
	if v := m.read32(1, 0); v != 0x10441af4 {
		t.Errorf("identity %#x", v)
	}
	for what, v := range map[string]uint32{
		"slot without a device": m.read32(2, 0), "other function": m.read32(1, 1<<12), "behind 256 bytes": m.read32(1, 256),
		"last byte": m.read32(31, 0x7ffc),
	} {
		if v != 0xffffffff {
			t.Errorf("%s reads %#x", what, v)
		}
	}
}

// What a guest writes changes nothing but what the mask allows.
func TestWriteMasks(t *testing.T) {
	m := newMachine(t, withBAR(t, new(ram)))
	want := map[int]uint32{0x04: 0x0406, 0x10: 0xffffe000, 0x3c: 0xff}
	for reg := 0; reg < 256; reg += 4 {
		before := m.read32(1, reg)
		m.write32(1, reg, 0xffffffff)
		if got := m.read32(1, reg); got != before|want[reg] {
			t.Errorf("register %#x is %#x after ones", reg, got)
		}
		m.write32(1, reg, 0)
		if got := m.read32(1, reg); got != before&^want[reg]&^map[int]uint32{0x10: before}[reg] {
			t.Errorf("register %#x is %#x after zeros", reg, got)
		}
	}
	m.host.Reset()
	if v := m.read32(1, 0x10); v != pci.WindowBase {
		t.Errorf("BAR after a reset: %#x", v)
	}
}

type owner struct{ moves, resets int }

func (o *owner) Moved() { o.moves++ }
func (o *owner) Reset() { o.resets++ }

func TestBARAnswersWhereItIs(t *testing.T) {
	r := new(ram)
	f := withBAR(t, r)
	o := new(owner)
	f.Own(o)
	m := newMachine(t, withBAR(t, new(ram)), f)
	const first, second = pci.WindowBase + 8192, pci.WindowBase + 0x100000
	peek := func(addr uint64) byte {
		b := []byte{0}
		m.memory.Read(addr, b)
		return b[0]
	}
	r[5] = 7
	if peek(first+5) != 0xff {
		t.Error("answers before it is switched on")
	}
	m.write32(2, 4, 2)
	if peek(first+5) != 7 {
		t.Error("does not answer")
	}
	m.write32(2, 0x10, second)
	if peek(first+5) != 0xff || peek(second+5) != 7 {
		t.Error("does not answer where it was moved to")
	}
	m.memory.Write(second+6, []byte{9})
	if r[6] != 9 {
		t.Error("a write does not arrive")
	}
	over := make([]byte, 4)
	m.memory.Read(second+8190, over)
	if !bytes.Equal(over, []byte{255, 255, 255, 255}) {
		t.Errorf("an access over the end gives %x", over)
	}
	for _, outside := range []uint32{0, pci.WindowBase - 8192, 0xffffe000} {
		m.write32(2, 0x10, outside)
		if _, on := f.BAR(0); on {
			t.Errorf("answers at %#x", outside)
		}
	}
	if o.moves != 5 {
		t.Errorf("told of %d moves", o.moves)
	}
	if m.host.Reset(); o.resets != 1 || o.moves != 6 {
		t.Errorf("told of %d resets and %d moves", o.resets, o.moves)
	}
}

func TestBadBARs(t *testing.T) {
	f := withBAR(t, new(ram))
	for _, c := range []struct {
		n    int
		size uint32
	}{{0, 4096}, {-1, 4096}, {6, 4096}, {1, 0}, {1, 8}, {1, 4097}} {
		if err := f.SetBAR(c.n, c.size, new(ram)); !errors.Is(err, pci.ErrBAR) {
			t.Errorf("BAR %d of %d bytes: %v", c.n, c.size, err)
		}
	}
}

// TestComeAndGo: a slot that was left is empty for the guest and the next function's, which
// has addresses that no other has at power-on.
func TestComeAndGo(t *testing.T) {
	made := func(size uint32) *pci.Function {
		f := pci.NewFunction(anID)
		if err := f.SetBAR(0, size, new(ram)); err != nil {
			t.Fatal(err)
		}
		return f
	}
	m := newMachine(t, made(4096), made(16384), made(4096))
	bars := []uint32{m.read32(1, 0x10), m.read32(2, 0x10), m.read32(3, 0x10)}
	m.write32(1, 0x10, bars[1]) // where the guest puts one does not count
	m.host.Remove(2)
	if id := m.read32(2, 0); id != 0xffffffff {
		t.Errorf("the empty slot has %#x", id)
	}
	type span struct{ at, size uint32 }
	taken := []span{{bars[0], 4096}, {bars[2], 4096}}
	for i, size := range []uint32{4096, 8192, 16384} {
		slot, err := m.host.Add(made(size))
		if want := []int{2, 4, 5}[i]; err != nil || slot != want {
			t.Fatalf("got slot %d, want %d: %v", slot, want, err)
		}
		at := m.read32(slot, 0x10)
		if at%size != 0 || at < pci.WindowBase || slices.ContainsFunc(taken, func(s span) bool { return at < s.at+s.size && s.at < at+size }) {
			t.Errorf("slot %d is at %#x, and others at %#x", slot, at, taken)
		}
		taken = append(taken, span{at, size})
	}
}

func TestNoRoom(t *testing.T) {
	h := pci.NewHost()
	for range 31 {
		if _, err := h.Add(pci.NewFunction(anID)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.Add(pci.NewFunction(anID)); !errors.Is(err, pci.ErrFull) {
		t.Errorf("33rd function: %v", err)
	}
	large := pci.NewFunction(anID)
	if err := large.SetBAR(0, 1<<30, new(ram)); err != nil {
		t.Fatal(err)
	}
	if _, err := pci.NewHost().Add(large); !errors.Is(err, pci.ErrFull) {
		t.Errorf("BAR of 1 GiB: %v", err)
	}
	f := pci.NewFunction(anID)
	if _, err := f.AddCapability(9, make([]byte, 200), nil, nil); !errors.Is(err, pci.ErrFull) {
		t.Errorf("capability that is too long: %v", err)
	}
}

func TestCapabilitiesAreAList(t *testing.T) {
	f := pci.NewFunction(anID)
	for i := range 3 {
		if _, err := f.AddCapability(9, bytes.Repeat([]byte{byte(i)}, 5), nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	m := newMachine(t, f)
	if m.read32(1, 4)>>16&0x10 == 0 {
		t.Error("the status says that there is no list")
	}
	n := 0
	for next := m.read32(1, 0x34) & 0xff; next != 0; n++ {
		head := m.read32(1, int(next))
		if head&0xff != 9 || head>>24 != uint32(n) {
			t.Errorf("capability %d at %#x is %#x", n, next, head)
		}
		next = head >> 8 & 0xff
	}
	if n != 3 {
		t.Errorf("%d capabilities", n)
	}
}

// sent takes down what MSI-X sends.
type sent struct {
	routes map[int][2]uint64
	sent   []int
	refuse bool
}

func (s *sent) Route(v int, addr uint64, data uint32) bool {
	if s.refuse {
		return false
	}
	s.routes[v] = [2]uint64{addr, uint64(data)}
	return true
}
func (s *sent) Send(v int)     { s.sent = append(s.sent, v) }
func (s *sent) File(v int) int { return 100 + v }

// newMSIX is a table of three vectors at the beginning of a BAR.
func newMSIX(t *testing.T) (*pci.MSIX, *sent, *machine) {
	t.Helper()
	out := &sent{routes: map[int][2]uint64{}}
	f := pci.NewFunction(anID)
	x, err := f.AddMSIX(3, 0, 0, out)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.SetBAR(0, 8192, x); err != nil {
		t.Fatal(err)
	}
	return x, out, newMachine(t, f)
}

// TestTie: who sends a vector in the table's stead may, exactly while the guest lets it.
func TestTie(t *testing.T) {
	x, out, m := newMSIX(t)
	const base, control = pci.WindowBase, 0x40
	write := func(off uint64, v uint32) { m.memory.Write(base+off, le32(v)) }
	var told []int
	wants := func(what string, fds ...int) {
		t.Helper()
		if !slices.Equal(told, fds) {
			t.Errorf("%s: told %v, want %v", what, told, fds)
		}
		told = nil
	}
	m.write32(1, 4, 2)
	tie := x.Tie(1, func(fd int) { told = append(told, fd) })
	write(16+12, 0)
	wants("MSI-X is off")
	m.write32(1, control, 0x8000<<16)
	wants("MSI-X is on", 101)
	write(12, 0) // another vector
	write(16+8, 0x4041)
	wants("another message")
	write(16+12, 1)
	wants("masked", pci.NoFile)
	x.Raise(1)
	write(16+12, 0)
	wants("not masked", 101)
	if !slices.Equal(out.sent, []int{1}) || out.routes[1] != [2]uint64{0, 0x4041} {
		t.Errorf("sent %v by %x", out.sent, out.routes)
	}
	m.write32(1, control, 0xc000<<16)
	wants("all are masked", pci.NoFile)
	out.refuse = true
	write(16+8, 0x4042)
	m.write32(1, control, 0x8000<<16)
	wants("no route")
	out.refuse = false
	x.Raise(1)
	wants("a route", 101)
	tie.Move(0xffff)
	wants("no vector", pci.NoFile)
	tie.Move(0)
	wants("another vector", 100)
	again := x.Tie(0, func(fd int) { told = append(told, -fd) })
	wants("a second", -100)
	again.Cut()
	x.Reset()
	wants("reset", pci.NoFile)
	tie.Cut()
	write(12, 0)
	m.write32(1, control, 0x8000<<16)
	wants("cut")
}

func TestMSIX(t *testing.T) {
	x, out, m := newMSIX(t)
	const base, control = pci.WindowBase, 0x40
	write := func(off uint64, v uint32) { m.memory.Write(base+off, le32(v)) }
	pending := func() uint32 {
		b := make([]byte, 4)
		m.memory.Read(base+2048, b)
		return binary.LittleEndian.Uint32(b)
	}
	m.write32(1, 4, 2)
	if v := m.read32(1, control); v != 2<<16|0x11 {
		t.Errorf("capability is %#x", v)
	}
	x.Raise(1)
	if len(out.sent) != 0 || pending() != 0 {
		t.Error("sends although it is off")
	}
	m.write32(1, control, 0x8000<<16)
	x.Raise(1)
	x.Raise(3)
	x.Raise(-1)
	if len(out.sent) != 0 || pending() != 2 {
		t.Errorf("masked: sent %v, pending %#x", out.sent, pending())
	}
	write(16, 0xfee01003)
	write(16+4, 0)
	write(16+8, 0x4041)
	write(2048, 0xffffffff) // pending bits are not to be written
	m.write32(1, control, 0xc000<<16)
	write(16+12, 0xfffffffe)
	if len(out.sent) != 0 {
		t.Error("sends although all are masked")
	}
	m.write32(1, control, 0x8000<<16)
	if len(out.sent) != 1 || out.sent[0] != 1 || pending() != 0 || out.routes[1] != [2]uint64{0xfee01000, 0x4041} {
		t.Errorf("sent %v by %x, pending %#x", out.sent, out.routes, pending())
	}
	x.Raise(1)
	if len(out.sent) != 2 {
		t.Error("not sent at once")
	}
	out.refuse = true
	write(16+8, 0x4042)
	x.Raise(1)
	if len(out.sent) != 2 || pending() != 2 {
		t.Errorf("sent %v, pending %#x, of a message that cannot be had", out.sent, pending())
	}
	out.refuse = false
	x.Raise(1)
	if len(out.sent) != 3 || pending() != 0 || out.routes[1] != [2]uint64{0xfee01000, 0x4042} {
		t.Errorf("sent %v by %x, pending %#x", out.sent, out.routes, pending())
	}
	m.host.Reset()
	x.Raise(1)
	if len(out.sent) != 3 || x.Enabled() {
		t.Error("sends after a reset")
	}
}

// A guest may do anything to the bus; each access is 12 bytes of a stream.
func FuzzAccesses(f *testing.F) {
	f.Add([]byte{0, 0xf8, 0x0c, 4, 0, 0, 0, 0x80, 0x80, 1, 0xfc, 0x0c, 4, 1, 2, 3, 4, 5})
	f.Fuzz(func(t *testing.T, stream []byte) {
		fn := pci.NewFunction(anID)
		x, err := fn.AddMSIX(5, 0, 0, &sent{routes: map[int][2]uint64{}})
		if err == nil {
			err = fn.SetBAR(0, 8192, x)
		}
		if err != nil {
			t.Fatal(err)
		}
		m := newMachine(t, fn)
		for ; len(stream) >= 12; stream = stream[12:] {
			kind, size, addr := stream[0], int(stream[1])%8+1, uint64(binary.LittleEndian.Uint16(stream[2:]))
			data := bytes.Clone(stream[4:12])[:size]
			space := &m.memory
			switch kind % 4 {
			case 0:
				space, addr = &m.ports, pci.AddressPort+addr%8
			case 1:
				addr += pci.ECAMBase
			case 2:
				addr += pci.WindowBase
			case 3:
				x.Raise(int(addr) - 2)
				continue
			}
			if kind&4 == 0 {
				space.Read(addr, data)
			} else {
				space.Write(addr, data)
			}
		}
	})
}
