// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"time"
)

// How much is kept. Each is far more than a busy day; nothing grows for ever.
const (
	keepEvents   = 200_000
	keepTasks    = 100_000
	keepTaskTime = 30 * 24 * time.Hour
	keepAudit    = 2_000_000
	trimBatch    = 5_000 // rows of one transaction, so that no write waits long
)

// Trim removes what is older than is kept. Open tasks stay whatever their age.
func (s *Store) Trim(ctx context.Context) error {
	now := s.now()
	for _, q := range []struct {
		query string
		arg   int64
	}{
		{`DELETE FROM events WHERE seq IN (SELECT seq FROM events WHERE seq <= (SELECT max(seq) FROM events) - ?1 ORDER BY seq LIMIT ?2)`, keepEvents},
		{`DELETE FROM tasks WHERE at IN (SELECT at FROM tasks WHERE at <= (SELECT max(at) FROM tasks) - ?1 AND state NOT IN ('queued', 'running') ORDER BY at LIMIT ?2)`, keepTasks},
		{`DELETE FROM tasks WHERE at IN (SELECT at FROM tasks WHERE created < ?1 AND state NOT IN ('queued', 'running') ORDER BY at LIMIT ?2)`, now.Add(-keepTaskTime).UnixMilli()},
		{`DELETE FROM audit WHERE at IN (SELECT at FROM audit WHERE at <= (SELECT max(at) FROM audit) - ?1 ORDER BY at LIMIT ?2)`, keepAudit},
		{`DELETE FROM answers WHERE rowid IN (SELECT rowid FROM answers WHERE created < ?1 LIMIT ?2)`, now.Add(-AnswerLife).UnixMilli()},
		{`DELETE FROM sessions WHERE rowid IN (SELECT rowid FROM sessions WHERE expires < ?1 LIMIT ?2)`, now.UnixMilli()},
	} {
		if err := s.trim(ctx, q.query, q.arg); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) trim(ctx context.Context, query string, arg int64) error {
	for {
		var gone int64
		s.updating.Lock()
		err := s.update(ctx, func(t *Tx) error {
			r, err := t.tx.ExecContext(ctx, query, arg, trimBatch)
			if err != nil {
				return err
			}
			gone, err = r.RowsAffected()
			return err
		})
		s.updating.Unlock()
		if err != nil || gone < trimBatch {
			return err
		}
	}
}
