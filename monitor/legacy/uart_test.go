// SPDX-License-Identifier: Apache-2.0

package legacy_test

import (
	"bytes"
	"testing"

	"vmctl/monitor/legacy"
)

// port is a UART with what came out of it.
type port struct {
	*legacy.UART
	out   bytes.Buffer
	line  bool
	edges int
	rooms int
}

func newPort() *port {
	p := new(port)
	p.UART = legacy.NewUART(func(b byte) { p.out.WriteByte(b) }, func(up bool) { p.line = up; p.edges++ }, func() { p.rooms++ })
	return p
}

func TestSend(t *testing.T) {
	p := newPort()
	for _, b := range []byte("hello") {
		if p.In(5)&0x60 != 0x60 {
			t.Fatal("transmitter is not empty")
		}
		p.Out(0, b)
	}
	if p.out.String() != "hello" || p.edges != 0 {
		t.Errorf("sent %q, line changed %d times", p.out.String(), p.edges)
	}
}

// A driver that waits for "transmitter empty" gets it when it enables the
// interrupt and after each byte, and loses it by asking what it was.
func TestTransmitInterrupt(t *testing.T) {
	p := newPort()
	p.Out(1, 2)
	if !p.line || p.In(2) != 0x02 || p.line || p.In(2) != 0x01 {
		t.Fatal("enabling does not raise the interrupt once")
	}
	p.Out(0, 'x')
	if !p.line || p.In(2) != 0x02 {
		t.Error("a byte sent does not raise the interrupt")
	}
	p.Out(0, 'x')
	p.Out(1, 0)
	if p.line {
		t.Error("the line stays up when the interrupt is disabled")
	}
}

func TestReceiveInterrupt(t *testing.T) {
	p := newPort()
	p.Out(2, 1)
	p.Out(1, 1)
	if n := p.Receive([]byte("ab")); n != 2 || !p.line || p.In(2) != 0xc4 || p.In(5) != 0x61 {
		t.Fatalf("took %d, line %v", n, p.line)
	}
	if a, b := p.In(0), p.In(0); a != 'a' || b != 'b' || p.line || p.In(5) != 0x60 {
		t.Errorf("read %q %q, line %v", a, b, p.line)
	}
	if p.In(0) != 0 {
		t.Error("an empty receiver gives a byte")
	}
}

func TestFullReceiverCallsForMore(t *testing.T) {
	p := newPort()
	if n := p.Receive(make([]byte, 1000)); n != 256 {
		t.Fatalf("took %d", n)
	}
	for range 127 {
		p.In(0)
	}
	if p.rooms != 0 {
		t.Error("called before half is free")
	}
	p.In(0)
	if p.rooms != 1 {
		t.Errorf("called %d times", p.rooms)
	}
	for range 128 {
		p.In(0)
	}
	if p.rooms != 1 {
		t.Errorf("called %d times", p.rooms)
	}
}

// Linux takes a port for a 16550A by these.
func TestProbe(t *testing.T) {
	p := newPort()
	p.Out(4, 0x1a)
	if got := p.In(6) & 0xf0; got != 0x90 {
		t.Errorf("loopback shows %#x", got)
	}
	p.Out(4, 0)
	if got := p.In(6); got != 0xb0 {
		t.Errorf("modem shows %#x", got)
	}
	p.Out(2, 1)
	if got := p.In(2) >> 6; got != 3 {
		t.Errorf("FIFO shows %d", got)
	}
	p.Out(1, 0x0f)
	if p.In(1) != 0x0f {
		t.Error("IER does not keep its bits")
	}
	p.Out(7, 0x5a)
	p.Out(3, 0x80)
	p.Out(0, 1)
	p.Out(1, 2)
	if p.In(0) != 1 || p.In(1) != 2 || p.In(7) != 0x5a || p.out.Len() != 0 {
		t.Error("divisor is not apart from data")
	}
}

func TestLoopbackComesBack(t *testing.T) {
	p := newPort()
	p.Out(4, 0x10)
	p.Out(0, 'x')
	if p.In(0) != 'x' || p.out.Len() != 0 {
		t.Error("byte did not come back")
	}
}

func TestUARTReset(t *testing.T) {
	p := newPort()
	p.Out(1, 3)
	p.Receive(make([]byte, 300))
	p.Out(3, 0x83)
	p.Reset()
	if p.line || p.rooms != 1 {
		t.Errorf("line %v, %d calls for room", p.line, p.rooms)
	}
	for reg, want := range []uint8{0, 0, 1, 0, 0, 0x60, 0xb0, 0} {
		if got := p.In(uint8(reg)); got != want {
			t.Errorf("register %d is %#x, want %#x", reg, got, want)
		}
	}
}

// The line always is what the registers say, whatever is done to them.
func FuzzUART(f *testing.F) {
	f.Add([]byte{0x81, 3, 0x80, 'x', 2, 0, 0x40, 9})
	f.Fuzz(func(t *testing.T, ops []byte) {
		p := newPort()
		for len(ops) >= 2 {
			switch op, v := ops[0], ops[1]; {
			case op&0x80 != 0:
				p.Out(op&7, v)
			case op&0x40 != 0:
				p.Receive(make([]byte, int(v)*4))
			default:
				p.In(op & 15)
			}
			ops = ops[2:]
		}
		p.Out(3, 0)
		iir := p.In(2)
		if none := iir&1 != 0; none && p.line {
			t.Fatalf("line is up with IIR %#x", iir)
		}
		p.Reset()
		if p.line {
			t.Fatal("line is up after reset")
		}
	})
}
