// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"vmctl/daemon/api"
	"vmctl/daemon/task"
	"vmctl/daemon/vm"
)

// Tx is one transaction of Update.
type Tx struct {
	ctx     context.Context
	tx      *sql.Tx
	now     time.Time
	origin  *task.Origin
	seq     int64
	events  []api.Event
	puts    map[string]*vm.Record // nil value: deleted
	object  string                // uuid that the audit row names
	audited bool
}

// Update runs fn in a transaction. With an origin in ctx its audit row is
// written in the same transaction. When it returns nil, all is on the disk,
// lists show it, and readers of events were told.
func (s *Store) Update(ctx context.Context, fn func(vm.Tx) error) error {
	s.updating.Lock()
	defer s.updating.Unlock()
	return s.update(ctx, func(t *Tx) error { return fn(t) })
}

func (s *Store) update(ctx context.Context, fn func(*Tx) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("store: begin: %w", err)
	}
	t := &Tx{ctx: ctx, tx: tx, now: s.now().UTC(), origin: task.OriginOf(ctx), seq: s.last, puts: map[string]*vm.Record{}}
	err = fn(t)
	if err == nil {
		err = t.auditOrigin("done")
	}
	if err == nil {
		err = tx.Commit()
	}
	if err != nil {
		if t.audited {
			t.origin.Unaudited()
		}
		return errors.Join(err, ignoreDone(tx.Rollback()))
	}
	s.last = t.seq
	s.apply(t)
	s.tell(t.events)
	return nil
}

func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}

func (t *Tx) exec(query string, args ...any) error {
	if _, err := t.tx.ExecContext(t.ctx, query, args...); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// Event adds to the journal.
func (t *Tx) Event(kind api.EventKind, ref *api.VMRef, data any) error {
	raw, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("store: event %s: %w", kind, err)
	}
	e := api.Event{Seq: t.seq + 1, Time: t.now, Kind: kind, VM: ref, Data: raw}
	row, err := json.Marshal(&e)
	if err != nil {
		return fmt.Errorf("store: event %s: %w", kind, err)
	}
	if err := t.exec(`INSERT INTO events (seq, event) VALUES (?, ?)`, e.Seq, string(row)); err != nil {
		return err
	}
	t.seq = e.Seq
	t.events = append(t.events, e)
	if ref != nil && t.object == "" {
		t.object = ref.ID
	}
	return nil
}

// Audit adds a row to the audit log, for what no request asked for.
func (t *Tx) Audit(actor, session, action, object string) error {
	return t.exec(`INSERT INTO audit (time, actor, session, address, request_id, action, object, outcome) VALUES (?, ?, ?, '', '', ?, ?, 'done')`,
		t.now.UnixMilli(), actor, session, action, object)
}

// auditOrigin writes the row of the request that the transaction belongs to,
// once per request.
func (t *Tx) auditOrigin(outcome string) error {
	o := t.origin
	if o == nil || o.Audited() {
		return nil
	}
	t.audited = true
	object := t.object
	if object == "" {
		object = o.Path
	}
	return t.exec(`INSERT INTO audit (time, actor, session, address, request_id, action, object, outcome) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		t.now.UnixMilli(), o.Actor, o.Session, o.Address, o.RequestID, o.Method+" "+o.Path, object, outcome)
}

// Answer keeps what the request is answered with, for its idempotency key.
func (t *Tx) Answer(v any) error {
	if t.origin == nil || t.origin.Claim == nil {
		return nil
	}
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("store: answer: %w", err)
	}
	c := t.origin.Claim
	return t.exec(`INSERT OR REPLACE INTO answers (scope, key, hash, created, status, body) VALUES (?, ?, ?, ?, 0, ?)`,
		c.Scope, c.Key, c.Hash[:], t.now.UnixMilli(), string(body))
}
