// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strings"

	"vmctl/daemon/api"
	"vmctl/daemon/seed"
)

// checkSeed is the one check of a seed.
func checkSeed(s *api.Seed) error {
	if s == nil {
		return nil
	}
	total := 0
	for _, text := range []struct{ field, text string }{
		{"userData", s.UserData}, {"metaData", s.MetaData}, {"networkConfig", s.NetworkConfig},
	} {
		if strings.IndexByte(text.text, 0) >= 0 {
			return &api.Error{Code: api.CodeSeedInvalid, Field: "body.seed." + text.field, Detail: "holds a NUL byte"}
		}
		total += len(text.text)
	}
	if total > api.MaxSeed {
		return &api.Error{Code: api.CodeSeedTooLarge, Field: "body.seed", Detail: fmt.Sprintf("has %d bytes, of at most %d", total, api.MaxSeed)}
	}
	return nil
}

// Seed returns the seed of the VM with that uuid. The error is an *api.Error with
// CodeNotFound when it has none.
func (inv *Inventory) Seed(ctx context.Context, id string) (api.Seed, error) {
	s, err := inv.store.Seed(ctx, id)
	if err == nil && s == nil {
		err = &api.Error{Code: api.CodeNotFound, Detail: "the VM has no seed"}
	}
	if err != nil {
		return api.Seed{}, err
	}
	return *s, nil
}

// openSeed makes the disk of a VM's seed, or returns nil if it has none.
func (inv *Inventory) openSeed(vm api.VM) (*os.File, error) {
	if vm.Seed == nil {
		return nil, nil
	}
	s, err := inv.Seed(inv.ctx, vm.ID)
	if err != nil {
		return nil, err
	}
	f, err := seed.Open(seed.Texts{UserData: s.UserData, NetworkConfig: s.NetworkConfig,
		MetaData: cmp.Or(s.MetaData, seed.DefaultMetaData(vm.ID, vm.Name))})
	if err != nil {
		return nil, fmt.Errorf("seed of %s: %w", vm.Name, err)
	}
	return f, nil
}
