// SPDX-License-Identifier: Apache-2.0

//go:build !race

package vsock_test

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

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
		})
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
