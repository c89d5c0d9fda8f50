// SPDX-License-Identifier: Apache-2.0

//go:build !race

package balloon_test

import (
	"testing"

	"vmctl/monitor/virtio/balloon"
	"vmctl/monitor/virtio/virtiotest"
)

func FuzzHostile(f *testing.F) {
	virtiotest.Seeds(f)
	f.Fuzz(func(t *testing.T, program []byte) { virtiotest.Hostile(t, balloon.New(newMemory(t)), program) })
}
