// SPDX-License-Identifier: Apache-2.0

//go:build !race

package rng_test

import (
	"testing"

	"vmctl/monitor/virtio/rng"
	"vmctl/monitor/virtio/virtiotest"
)

func FuzzHostile(f *testing.F) {
	virtiotest.Seeds(f)
	f.Fuzz(func(t *testing.T, program []byte) { virtiotest.Hostile(t, rng.New(), program) })
}
