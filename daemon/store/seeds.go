// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"vmctl/daemon/api"
)

// Seed returns the seed of the VM with that uuid, or nil if it has none.
func (s *Store) Seed(ctx context.Context, id string) (*api.Seed, error) {
	var text string
	err := s.read.QueryRowContext(ctx, `SELECT seed FROM seeds WHERE vm = ?`, id).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("store: seed: %w", err)
	}
	seed := new(api.Seed)
	if err := json.Unmarshal([]byte(text), seed); err != nil {
		return nil, fmt.Errorf("store: seed: %w", err)
	}
	return seed, nil
}

// PutSeed gives a VM a seed.
func (t *Tx) PutSeed(id string, seed api.Seed) error {
	text, err := json.Marshal(&seed)
	if err != nil {
		return fmt.Errorf("store: put seed: %w", err)
	}
	return t.exec(`INSERT OR REPLACE INTO seeds (vm, seed) VALUES (?, ?)`, id, string(text))
}
