// SPDX-License-Identifier: Apache-2.0

package net

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"vmctl/monitor/virtio"
	"vmctl/monitor/virtio/virtiotest"
)

// bare is a network card whose tap is any file that keeps packets apart.
type bare struct{ *own }

func (bare) Kind() virtio.Kind          { return (*Device)(nil).Kind() }
func (bare) Config() []byte             { return make([]byte, 6) }
func (b bare) Attach(bells []int) error { return b.attach(bells) }
func (b bare) Stop()                    { b.stop() }
func (b bare) Close() error             { return errors.Join(b.close(), b.tap.Close()) }
func (b bare) Start(features uint64, queues []*virtio.Queue) {
	if err := b.start(features, queues[receiveQueue], queues[sendQueue]); err != nil {
		panic(err)
	}
}

// newWire starts a network card, and returns the other end of its wire.
func newWire(t *testing.T, without uint64) (*virtiotest.Driver, int) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(pair[1], false); err != nil {
		t.Fatal(err)
	}
	drv := virtiotest.New(t, bare{&own{tap: os.NewFile(uintptr(pair[0]), "tap")}}, without)
	t.Cleanup(func() { unix.Close(pair[1]) })
	return drv, pair[1]
}

// frame is a packet with its header.
func frame(size int, fill byte) []byte {
	return append(make([]byte, HeaderSize), bytes.Repeat([]byte{fill}, size)...)
}

func TestSend(t *testing.T) {
	drv, wire := newWire(t, 0)
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
	drv, wire := newWire(t, 0)
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
	drv, wire := newWire(t, featureMergeable)
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
			drv, wire := newWire(t, 0)
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
	drv, wire := newWire(t, 0)
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
