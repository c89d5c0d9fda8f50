// SPDX-License-Identifier: Apache-2.0

//go:build !race

package net

import (
	"testing"

	"golang.org/x/sys/unix"

	"vmctl/monitor/virtio/virtiotest"
)

func FuzzHostile(f *testing.F) {
	virtiotest.Seeds(f)
	f.Fuzz(func(t *testing.T, program []byte) {
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
		virtiotest.Hostile(t, newBare(pair[0], Options{}), program)
	})
}
