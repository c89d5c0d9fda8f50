// SPDX-License-Identifier: Apache-2.0

package kerntest_test

import (
	"path/filepath"
	"testing"

	"github.com/google/uuid"

	"vmctl/abi"
	"vmctl/daemon/kern/kerntest"
)

func TestConform(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vmm")
	k, err := kerntest.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	c := kerntest.NewClient(path)
	kerntest.Conform(t, kerntest.Host{
		Kernel:   c.Kernel,
		Create:   func(id uuid.UUID, name string) (kerntest.Machine, uint64, error) { return c.CreateVM(id, name) },
		Open:     func(id uint64, rights abi.Right) (kerntest.Machine, error) { return c.OpenVM(id, rights) },
		MakeVCPU: func(m kerntest.Machine, index uint32) error { return m.(*kerntest.VM).MakeVCPU(index) },
		GiveBack: func(m kerntest.Machine, backend uint32) error { return m.(*kerntest.VM).GiveBack(backend) },
	})
}
