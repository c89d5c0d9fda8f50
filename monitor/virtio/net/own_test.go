// SPDX-License-Identifier: Apache-2.0

package net

import (
	"bytes"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/monitor/rate"
	"vmctl/monitor/virtio"
	"vmctl/monitor/virtio/virtiotest"
)

// bare is a network card whose tap is any file that keeps packets apart.
type bare struct{ *own }

func (bare) Kind() virtio.Kind          { return (*Device)(nil).Kind() }
func (bare) Config() []byte             { return make([]byte, 6) }
func (b bare) Attach(bells []int) error { return b.attach(bells) }
func (b bare) Stop()                    { b.stop() }
func (b bare) Close() error             { return b.tap.Close() }
func (b bare) Start(features uint64, queues []*virtio.Queue) {
	receive, send := queues[receiveQueue], queues[sendQueue]
	if receive == nil || send == nil {
		return // as Device
	}
	if err := b.start(features, receive, send); err != nil {
		panic(err)
	}
}

func newBare(tap int, o Options) bare {
	b := bare{&own{tap: os.NewFile(uintptr(tap), "tap")}}
	b.limit(o)
	return b
}

// newWire starts a network card, and returns the other end of its wire.
func newWire(t *testing.T, without uint64, o Options) (*virtiotest.Driver, int) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(pair[1], false); err != nil {
		t.Fatal(err)
	}
	drv := virtiotest.New(t, newBare(pair[0], o), without)
	t.Cleanup(func() { unix.Close(pair[1]) })
	return drv, pair[1]
}

// frame is a packet with its header.
func frame(size int, fill byte) []byte {
	return append(make([]byte, HeaderSize), bytes.Repeat([]byte{fill}, size)...)
}

func TestSend(t *testing.T) {
	drv, wire := newWire(t, 0, Options{})
	got := make([]byte, maxFrame)
	for _, size := range []int{1, 60, 1514, 30000} {
		p := frame(size, byte(size))
		drv.Do(sendQueue, virtiotest.Request{Read: [][]byte{p[:HeaderSize], p[HeaderSize:]}})
		if n, err := unix.Read(wire, got); err != nil || !bytes.Equal(got[:n], p) {
			t.Errorf("of %d bytes came %d: %v", len(p), n, err)
		}
	}
}

func TestReceive(t *testing.T) {
	drv, wire := newWire(t, 0, Options{})
	// The packet is spread over as many buffers as it needs, and says how many.
	bufs := drv.Begin(receiveQueue, virtiotest.Request{Write: []int{5, 95}}, virtiotest.Request{Write: []int{100}},
		virtiotest.Request{Write: []int{1000}}, virtiotest.Request{Write: []int{2000}})
	long, short := frame(138, 'l'), frame(60, 's')
	for _, p := range [][]byte{long, frame(9000, 'x'), short} {
		if _, err := unix.Write(wire, p); err != nil {
			t.Fatal(err)
		}
	}
	// One that no buffers have room for is lost. The fourth buffer ends the wait.
	if _, err := unix.Write(wire, frame(60, 'e')); err != nil {
		t.Fatal(err)
	}
	drv.Do(receiveQueue)
	first := append(append(bytes.Clone(bufs[0].Write[0]), bufs[0].Write[1]...), bufs[1].Write[0][:50]...)
	long[bufferCount] = 2
	if !bytes.Equal(first, long) {
		t.Errorf("first packet:\n%q, want\n%q", first, long)
	}
	short[bufferCount] = 1
	if got := bufs[2].Write[0][:len(short)]; !bytes.Equal(got, short) {
		t.Errorf("second packet:\n%q, want\n%q", got, short)
	}
	if got := bufs[3].Write[0][HeaderSize]; got != 'e' {
		t.Errorf("third packet has %q", got)
	}
}

func TestReceiveUnmerged(t *testing.T) {
	drv, wire := newWire(t, featureMergeable, Options{})
	bufs := drv.Begin(receiveQueue, virtiotest.Request{Write: []int{200}}, virtiotest.Request{Write: []int{2000}}, virtiotest.Request{Write: []int{2000}})
	for _, p := range [][]byte{frame(100, 'a'), frame(1000, 'b'), frame(2500, 'x'), frame(50, 'c')} {
		if _, err := unix.Write(wire, p); err != nil {
			t.Fatal(err)
		}
	}
	drv.Do(receiveQueue)
	for i, want := range []byte{'a', 'b', 'c'} {
		if got := bufs[i].Write[0]; got[HeaderSize] != want || got[bufferCount] != 1 {
			t.Errorf("packet %d has %q in %d buffers", i, got[HeaderSize], got[bufferCount])
		}
	}
}

// TestBad: what a driver must not do breaks the device, and a reset mends it.
func TestBad(t *testing.T) {
	for name, c := range map[string]struct {
		queue int
		req   virtiotest.Request
	}{
		"send to write to":         {sendQueue, virtiotest.Request{Write: []int{100}}},
		"send less than a header":  {sendQueue, virtiotest.Request{Read: [][]byte{make([]byte, HeaderSize-1)}}},
		"receive into one to read": {receiveQueue, virtiotest.Request{Read: [][]byte{make([]byte, 100)}}},
		"receive into a header":    {receiveQueue, virtiotest.Request{Write: []int{HeaderSize}}},
	} {
		t.Run(name, func(t *testing.T) {
			drv, wire := newWire(t, 0, Options{})
			if drv.Do(c.queue, c.req); len(drv.Broken()) != 1 {
				t.Fatalf("broken: %v", drv.Broken())
			}
			drv.Reset()
			drv.Start(0)
			p := frame(60, 'p')
			drv.Do(sendQueue, virtiotest.Request{Read: [][]byte{p}})
			got := make([]byte, 100)
			if n, err := unix.Read(wire, got); err != nil || !bytes.Equal(got[:n], p) {
				t.Errorf("after a reset %q: %v", got[:max(n, 0)], err)
			}
		})
	}
}

// TestResetWhileWaiting: neither direction keeps a reset from its end.
func TestResetWhileWaiting(t *testing.T) {
	drv, wire := newWire(t, 0, Options{})
	for range 50 {
		drv.Begin(receiveQueue, virtiotest.Request{Write: []int{2000}}, virtiotest.Request{Write: []int{2000}})
		drv.Reset()
		drv.Start(0)
	}
	// A wire that takes nothing more.
	if err := unix.SetNonblock(wire, true); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		drv.Begin(sendQueue, virtiotest.Request{Read: [][]byte{frame(60000, 'f')}}, virtiotest.Request{Read: [][]byte{frame(60000, 'f')}},
			virtiotest.Request{Read: [][]byte{frame(60000, 'f')}}, virtiotest.Request{Read: [][]byte{frame(60000, 'f')}})
		drv.Reset()
		drv.Start(0)
	}
}

// TestLimits: each direction has its own limit, which loses nothing that the guest sends.
func TestLimits(t *testing.T) {
	drv, wire := newWire(t, 0, Options{Send: rate.Limit{Ops: 100, Burst: 1}, Receive: rate.Limit{Bytes: 100 << 10, Burst: 1}})
	start := time.Now()
	for i := range 11 {
		drv.Do(sendQueue, virtiotest.Request{Read: [][]byte{frame(60, byte(i))}})
		got := make([]byte, 100)
		if n, err := unix.Read(wire, got); err != nil || n != HeaderSize+60 || got[HeaderSize] != byte(i) {
			t.Fatalf("packet %d: %d bytes, %v", i, n, err)
		}
	}
	if took := time.Since(start); took < 99*time.Millisecond {
		t.Errorf("11 packets took %v", took)
	}
	start = time.Now()
	for i := range 11 {
		bufs := drv.Begin(receiveQueue, virtiotest.Request{Write: []int{HeaderSize + 1024}})
		if _, err := unix.Write(wire, frame(1024, byte(i))); err != nil {
			t.Fatal(err)
		}
		if drv.Do(receiveQueue); bufs[0].Write[0][HeaderSize] != byte(i) {
			t.Fatalf("packet %d is another", i)
		}
	}
	if took := time.Since(start); took < 99*time.Millisecond {
		t.Errorf("11 KiB took %v", took)
	}
}

// TestHeldBack: neither direction keeps a change or a reset from its end for as long as
// its limit makes it wait, and what waited then goes.
func TestHeldBack(t *testing.T) {
	slow := Options{Send: rate.Limit{Bytes: rate.MinBytes, Burst: 1}, Receive: rate.Limit{Bytes: rate.MinBytes, Burst: 1}}
	drv, wire := newWire(t, 0, slow)
	big := frame(60000, 's') // some 15 s
	got := make([]byte, maxFrame)
	drv.Begin(sendQueue, virtiotest.Request{Read: [][]byte{big}}, virtiotest.Request{Read: [][]byte{frame(60, 't')}})
	if n, err := unix.Read(wire, got); err != nil || n != len(big) {
		t.Fatalf("%d bytes, %v", n, err)
	}
	drv.Alter(func() error { drv.Device().(bare).limit(Options{}); return nil })
	drv.Do(sendQueue)
	if n, err := unix.Read(wire, got); err != nil || n != HeaderSize+60 || got[HeaderSize] != 't' {
		t.Errorf("behind it came %d bytes, %v", n, err)
	}
	drv.Alter(func() error { drv.Device().(bare).limit(slow); return nil })
	drv.Begin(sendQueue, virtiotest.Request{Read: [][]byte{big}}, virtiotest.Request{Read: [][]byte{big}})
	drv.Reset()
}

// TestLinkDown: packets of both directions are lost while the link is down, and only then.
func TestLinkDown(t *testing.T) {
	drv, wire := newWire(t, 0, Options{Down: true})
	bufs := drv.Begin(receiveQueue, virtiotest.Request{Write: []int{2000}})
	for range 3 {
		drv.Do(sendQueue, virtiotest.Request{Read: [][]byte{frame(60, 'l')}})
		if _, err := unix.Write(wire, frame(60, 'l')); err != nil {
			t.Fatal(err)
		}
	}
	for left := 1; left > 0; { // until the device has taken, and lost, all
		var err error
		if left, err = unix.IoctlGetInt(wire, unix.TIOCOUTQ); err != nil {
			t.Fatal(err)
		}
	}
	drv.Alter(func() error { drv.Device().(bare).limit(Options{}); return nil })
	drv.Do(sendQueue, virtiotest.Request{Read: [][]byte{frame(60, 'u')}})
	got := make([]byte, 100)
	if n, err := unix.Read(wire, got); err != nil || n != HeaderSize+60 || got[HeaderSize] != 'u' {
		t.Errorf("%d bytes of %q: %v", n, got[HeaderSize], err)
	}
	if _, err := unix.Write(wire, frame(60, 'u')); err != nil {
		t.Fatal(err)
	}
	if drv.Do(receiveQueue); bufs[0].Write[0][HeaderSize] != 'u' {
		t.Errorf("received %q", bufs[0].Write[0][HeaderSize])
	}
}

// TestStatus: the driver reads the link, and whoever limits a card takes it from its vhost.
func TestStatus(t *testing.T) {
	d := &Device{kernel: new(kernel)}
	for _, c := range []struct {
		o      Options
		status byte
		kernel bool
	}{
		{Options{}, statusLinkUp, true},
		{Options{Down: true}, 0, false},
		{Options{Send: rate.Limit{Ops: 1}}, statusLinkUp, false},
		{Options{Receive: rate.Limit{Bytes: 1 << 20}}, statusLinkUp, false},
	} {
		d.Set(c.o)
		if _, isKernel := d.engine.(*kernel); isKernel != c.kernel || d.Config()[cfgStatus] != c.status {
			t.Errorf("%+v: status %d, kernel %v", c.o, d.Config()[cfgStatus], isKernel)
		}
	}
}
