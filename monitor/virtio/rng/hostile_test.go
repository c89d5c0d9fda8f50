// SPDX-License-Identifier: Apache-2.0

//go:build !race

package rng_test

import (
	"testing"

	"vmctl/monitor/virtio"
	"vmctl/monitor/virtio/rng"
	"vmctl/monitor/virtio/virtiotest"
)

func FuzzHostile(f *testing.F) {
	virtiotest.Seeds(f)
	f.Fuzz(func(t *testing.T, program []byte) { virtiotest.Hostile(t, rng.New(), program) })
}

func FuzzLoad(f *testing.F) {
	newDevice := func() virtio.Device { return rng.New() }
	virtiotest.States(f, newDevice)
	f.Fuzz(func(t *testing.T, state, program []byte) { virtiotest.Load(t, newDevice, state, program) })
}
