// SPDX-License-Identifier: Apache-2.0

//go:build lab

package kabi

import (
	"testing"

	"github.com/google/uuid"

	"vmctl/abi"
	"vmctl/daemon/kern"
	"vmctl/daemon/kern/kerntest"
)

// TestConform holds the daemon's fake kernel to the module: what passes here
// passes on the fake.
func TestConform(t *testing.T) {
	d := openDevice(t)
	kerntest.Conform(t, kerntest.Host{
		Kernel: kern.New(abi.DevicePath),
		Create: func(id uuid.UUID, name string) (kerntest.Machine, uint64, error) { return d.Create(id, name) },
		Open:   func(id uint64, rights abi.Right) (kerntest.Machine, error) { return d.Open(id, rights) },
		MakeVCPU: func(m kerntest.Machine, index uint32) error {
			cpu, err := m.(*abi.VM).CreateVCPU(index)
			if err == nil {
				t.Cleanup(func() { closeAll(t, cpu) })
			}
			return err
		},
		GiveBack: func(kerntest.Machine, uint32) error { return nil }, // the module sees it
	})
}
