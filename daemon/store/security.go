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
)

// AnswerLife is how long an idempotency key is remembered.
const AnswerLife = 24 * time.Hour

// Denied writes the audit row of a request that changed nothing, once per
// request; with event not nil also the journal's auth.refused.
func (s *Store) Denied(ctx context.Context, outcome api.Code, event *api.RefusedData) error {
	s.updating.Lock()
	defer s.updating.Unlock()
	return s.update(ctx, func(t *Tx) error {
		if event != nil {
			if err := t.Event(api.EventAuthRefused, nil, event); err != nil {
				return err
			}
		}
		return t.auditOrigin(string(outcome))
	})
}

// Answered returns what a key was answered with, or nil; status is 0 for the
// answer of a change. fits is false when the key was used with another body.
func (s *Store) Answered(ctx context.Context, c *task.Claim) (status int, body []byte, fits bool, err error) {
	var hash []byte
	err = s.read.QueryRowContext(ctx, `SELECT hash, status, body FROM answers WHERE scope = ? AND key = ? AND created > ?`,
		c.Scope, c.Key, s.now().Add(-AnswerLife).UnixMilli()).Scan(&hash, &status, &body)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil, true, nil
	}
	if err != nil {
		return 0, nil, false, fmt.Errorf("store: answer: %w", err)
	}
	return status, body, string(hash) == string(c.Hash[:]), nil
}

// KeepRefusal keeps an answer that changed nothing, unless the key has one.
func (s *Store) KeepRefusal(ctx context.Context, c *task.Claim, status int, body []byte) error {
	s.updating.Lock()
	defer s.updating.Unlock()
	// Without the origin: its audit row says what it was refused for.
	return s.update(task.WithOrigin(ctx, nil), func(t *Tx) error {
		if err := t.exec(`DELETE FROM answers WHERE scope = ? AND key = ? AND created <= ?`,
			c.Scope, c.Key, t.now.Add(-AnswerLife).UnixMilli()); err != nil {
			return err
		}
		return t.exec(`INSERT OR IGNORE INTO answers (scope, key, hash, created, status, body) VALUES (?, ?, ?, ?, ?, ?)`,
			c.Scope, c.Key, c.Hash[:], t.now.UnixMilli(), status, string(body))
	})
}

// PutSession adds or replaces a login session.
func (s *Store) PutSession(ctx context.Context, id string, p api.SessionPut, fresh bool) error {
	text, err := json.Marshal(&p)
	if err != nil {
		return fmt.Errorf("store: session: %w", err)
	}
	s.updating.Lock()
	defer s.updating.Unlock()
	return s.update(ctx, func(t *Tx) error {
		if fresh {
			if err := t.Event(api.EventSessionStarted, nil, api.SessionData{Session: id, Principal: p.Principal}); err != nil {
				return err
			}
		}
		return t.exec(`INSERT OR REPLACE INTO sessions (id, session, expires) VALUES (?, ?, ?)`, id, string(text), p.ExpiresAt.UnixMilli())
	})
}

// EndSession removes a login session.
func (s *Store) EndSession(ctx context.Context, id string, principal string) error {
	s.updating.Lock()
	defer s.updating.Unlock()
	return s.update(ctx, func(t *Tx) error {
		if err := t.Event(api.EventSessionEnded, nil, api.SessionData{Session: id, Principal: principal}); err != nil {
			return err
		}
		return t.exec(`DELETE FROM sessions WHERE id = ?`, id)
	})
}

// Sessions returns the login sessions that have not expired.
func (s *Store) Sessions(ctx context.Context) (map[string]api.SessionPut, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT id, session FROM sessions WHERE expires > ?`, s.now().UnixMilli())
	if err != nil {
		return nil, fmt.Errorf("store: sessions: %w", err)
	}
	defer rows.Close()
	sessions := make(map[string]api.SessionPut)
	for rows.Next() {
		var id, text string
		var p api.SessionPut
		if err := rows.Scan(&id, &text); err != nil {
			return nil, fmt.Errorf("store: sessions: %w", err)
		}
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			return nil, fmt.Errorf("store: session: %w", err)
		}
		sessions[id] = p
	}
	return sessions, rows.Err()
}

// Grant is a row of the grants.
type Grant struct{ Principal, Scope, Role string }

// PutGrants adds or replaces grants.
func (s *Store) PutGrants(ctx context.Context, grants []Grant) error {
	s.updating.Lock()
	defer s.updating.Unlock()
	return s.update(ctx, func(t *Tx) error {
		for _, g := range grants {
			if err := t.exec(`INSERT OR REPLACE INTO grants (principal, scope, role) VALUES (?, ?, ?)`, g.Principal, g.Scope, g.Role); err != nil {
				return err
			}
			if err := t.Audit("unix:0", "", "grant "+g.Role, g.Principal+" "+g.Scope); err != nil {
				return err
			}
		}
		return nil
	})
}

// Grants returns all grants.
func (s *Store) Grants(ctx context.Context) ([]Grant, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT principal, scope, role FROM grants`)
	if err != nil {
		return nil, fmt.Errorf("store: grants: %w", err)
	}
	defer rows.Close()
	var grants []Grant
	for rows.Next() {
		var g Grant
		if err := rows.Scan(&g.Principal, &g.Scope, &g.Role); err != nil {
			return nil, fmt.Errorf("store: grants: %w", err)
		}
		grants = append(grants, g)
	}
	return grants, rows.Err()
}
