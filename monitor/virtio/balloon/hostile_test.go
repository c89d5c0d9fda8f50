// SPDX-License-Identifier: Apache-2.0

//go:build !race

package balloon_test

import (
	"testing"

	"vmctl/monitor/virtio"
	"vmctl/monitor/virtio/balloon"
	"vmctl/monitor/virtio/virtiotest"
)

func FuzzHostile(f *testing.F) {
	virtiotest.Seeds(f)
	f.Fuzz(func(t *testing.T, program []byte) { virtiotest.Hostile(t, balloon.New(newMemory(t)), program) })
}

func FuzzLoad(f *testing.F) {
	virtiotest.States(f, func() virtio.Device { return balloon.New(newMemory(f)) })
	f.Fuzz(func(t *testing.T, state, program []byte) {
		virtiotest.Load(t, func() virtio.Device { return balloon.New(newMemory(t)) }, state, program)
	})
}
