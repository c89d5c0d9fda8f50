// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"fmt"

	"vmctl/daemon/api"
)

// Events returns at most limit events after a number, in order.
func (s *Store) Events(ctx context.Context, after int64, limit int) ([]api.Event, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT event FROM events WHERE seq > ? ORDER BY seq LIMIT ?`, after, limit)
	if err != nil {
		return nil, fmt.Errorf("store: events: %w", err)
	}
	defer rows.Close()
	var events []api.Event
	for rows.Next() {
		var text string
		var e api.Event
		if err := rows.Scan(&text); err != nil {
			return nil, fmt.Errorf("store: events: %w", err)
		}
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			return nil, fmt.Errorf("store: events: %w", err)
		}
		events = append(events, e)
	}
	return events, rows.Err()
}

// EventRange returns the numbers of the first and the last event; with none,
// the first is 1 and the last 0.
func (s *Store) EventRange(ctx context.Context) (first, last int64, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT coalesce(min(seq), 1), coalesce(max(seq), 0) FROM events`).Scan(&first, &last)
	if err != nil {
		return 0, 0, fmt.Errorf("store: events: %w", err)
	}
	return first, last, nil
}
