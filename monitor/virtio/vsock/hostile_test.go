// SPDX-License-Identifier: Apache-2.0

//go:build !race

package vsock_test

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"vmctl/monitor/virtio"
	"vmctl/monitor/virtio/virtiotest"
	"vmctl/monitor/virtio/vsock"
)

// FuzzHostile: a host that connects wherever the guest wants, and says something.
func FuzzHostile(f *testing.F) {
	virtiotest.Seeds(f)
	// A request, and what may follow it, in the first buffer of the queue to the host.
	for op := range byte(9) {
		var program []byte
		for _, op := range []byte{1, op} {
			b, err := binary.Append(nil, binary.LittleEndian, to(uint16(op), 1000, 80))
			if err != nil {
				f.Fatal(err)
			}
			for at := byte(0); int(at) < len(b); at += 16 {
				program = append(program, 7, 1, at, 0)
				program = append(program, append(b, make([]byte, 16)...)[at:][:16]...)
			}
			program = append(program, 4, 1, 0, 0, 0x30, 0, 60, 0, 0, 0, 0, 0) // a descriptor of it
			program = append(program, 6, 1, 0)
			program = append(program, 4, 0, 0, 0, 0x30, 0, 255, 0, 0, 2, 0, 0, 6, 0, 0) // and one to write
		}
		f.Add(program)
	}
	f.Fuzz(func(t *testing.T, program []byte) {
		asks := make(chan uint32, 1000)
		dev := vsock.New(cid, nil, func(id, _ uint32) bool {
			asks <- id
			return true
		}, func() {})
		done := make(chan struct{})
		go func() {
			defer close(done)
			for id := range asks {
				pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					t.Error(err)
					return
				}
				unix.Write(pair[1], []byte("hello"))
				dev.Dialed(id, pair[0])
				unix.Close(pair[1])
			}
		}()
		virtiotest.Hostile(t, dev, program)
		t.Cleanup(func() {
			close(asks)
			<-done
		})
	})
}

// FuzzPackets: a guest whose rings are right and whose packets are not, and a host that
// says and ends what it likes. Nothing that either does breaks the device, and nothing
// is left after a reset.
func FuzzPackets(f *testing.F) {
	for op := range byte(9) {
		f.Add([]byte{1, 0, 0, 0, 0, 0, 9, 0, op, 0, 3, 4, 255, 0, 10, 0, 11, 0, op, 0, 2, 0, 0, 0})
		f.Add([]byte{1, 0, 0, 0, 8, 0, 9, 0, 5, 0, 0, 200, 200, 0, 5, 0, 0, 255, 200, 0, 12, 0, 4, 0, 1, op, 1, 0, 4, 0, 2, 0, 0, 0})
	}
	f.Fuzz(func(t *testing.T, program []byte) {
		asks := make(chan uint32, 1000)
		dev := vsock.New(cid, nil, func(id, _ uint32) bool {
			asks <- id
			return true
		}, func() {})
		drv := virtiotest.New(t, dev, 0)
		room := make([]virtiotest.Request, 8)
		for i := range room {
			room[i].Write = []int{60 << i}
		}
		drv.Begin(0, room...)
		var hosts []int
		t.Cleanup(func() {
			for _, fd := range hosts {
				unix.Close(fd)
			}
		})
		take := func() (b byte) {
			if len(program) > 0 {
				b, program = program[0], program[1:]
			}
			return b
		}
		// With more packets than answers may wait for the guest, it would have to take some.
		for range 60 {
			if len(program) == 0 {
				break
			}
			switch op, arg := take(), int(take()); {
			case op < 9:
				p := to(uint16(op), 1000+uint32(arg&3), 80)
				p.Flags, p.BufAlloc, p.FwdCnt = uint32(take()), uint32(take())<<8, uint32(take())
				body := make([]byte, int(take())<<7)
				p.Len = uint32(len(body)) + uint32(arg>>7)
				b, err := binary.Append(nil, binary.LittleEndian, p)
				if err != nil {
					t.Fatal(err)
				}
				drv.Do(1, virtiotest.Request{Read: [][]byte{append(b, body...)}})
			case op == 9 && len(asks) > 0:
				pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
				if err != nil {
					t.Fatal(err)
				}
				hosts = append(hosts, pair[1])
				dev.Dialed(<-asks, pair[0])
			case op == 10 && len(hosts) > 0: // it may be ended, or full
				unix.Write(hosts[arg%len(hosts)], make([]byte, 1<<(arg%12)))
			case op == 11 && len(hosts) > 0:
				unix.Shutdown(hosts[arg%len(hosts)], arg%3)
			case op == 12 && len(hosts) > 0:
				unix.Read(hosts[arg%len(hosts)], make([]byte, 1<<(arg%18)))
			case op == 13:
				dev.TransportReset()
			}
		}
		if broken := drv.Broken(); len(broken) > 0 {
			t.Error(broken)
		}
		drv.Reset()
		if n := dev.Connections(); n != 0 {
			t.Errorf("%d connections after a reset", n)
		}
	})
}

func FuzzLoad(f *testing.F) {
	newDevice := func() virtio.Device { return vsock.New(cid, nil, func(_, _ uint32) bool { return false }, func() {}) }
	virtiotest.States(f, newDevice)
	f.Fuzz(func(t *testing.T, state, program []byte) { virtiotest.Load(t, newDevice, state, program) })
}
