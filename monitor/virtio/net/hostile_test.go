// SPDX-License-Identifier: Apache-2.0

//go:build !race

package net

import (
	"testing"

	"golang.org/x/sys/unix"

	"vmctl/monitor/virtio"
	"vmctl/monitor/virtio/virtiotest"
)

func FuzzHostile(f *testing.F) {
	virtiotest.Seeds(f)
	f.Fuzz(func(t *testing.T, program []byte) {
		virtiotest.Hostile(t, waiting(t), program)
	})
}

func FuzzLoad(f *testing.F) {
	virtiotest.States(f, func() virtio.Device { return waiting(f) })
	f.Fuzz(func(t *testing.T, state, program []byte) {
		virtiotest.Load(t, func() virtio.Device { return waiting(t) }, state, program)
	})
}

// waiting is a network card with a few packets that wait for it.
func waiting(t testing.TB) virtio.Device {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(pair[1]) })
	for i := range 4 { // for buffers that are there
		if _, err := unix.Write(pair[1], frame(60<<i, 'h')); err != nil {
			t.Fatal(err)
		}
	}
	return newBare(pair[0], Options{})
}
