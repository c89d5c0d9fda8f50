// SPDX-License-Identifier: Apache-2.0

package login

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// How long a session lives.
const (
	IdleLife     = 8 * time.Hour
	AbsoluteLife = 24 * time.Hour
)

// maxSessions is how many one account may have; the oldest gives way.
const maxSessions = 32

// seenEvery bounds how often using a session writes its row.
const seenEvery = time.Minute

const secretSize = 32

// Session is a login as its row has it.
type Session struct {
	ID        string
	Account   string
	Address   string
	CreatedAt time.Time
	SeenAt    time.Time
	ExpiresAt time.Time // at the latest
}

// Principal is the account as the daemon knows it.
func (s Session) Principal() string { return "local:" + s.Account }

// Deadline is when the session ends if it is not used again.
func (s Session) Deadline() time.Time {
	if idle := s.SeenAt.Add(IdleLife); idle.Before(s.ExpiresAt) {
		return idle
	}
	return s.ExpiresAt
}

const sessionColumns = "id, account, address, created_at, seen_at, expires_at"

func scanSession(row interface{ Scan(...any) error }) (Session, error) {
	var s Session
	var created, seen, expires int64
	err := row.Scan(&s.ID, &s.Account, &s.Address, &created, &seen, &expires)
	s.CreatedAt, s.SeenAt, s.ExpiresAt = time.UnixMilli(created), time.UnixMilli(seen), time.UnixMilli(expires)
	return s, err
}

// newSession makes a row and the secret that stands for it in the cookie.
func (s *Store) newSession(ctx context.Context, account, address string, now time.Time) (Session, string, error) {
	secret, id := make([]byte, secretSize), make([]byte, 16)
	rand.Read(secret) // never fails: the runtime ends the process instead
	rand.Read(id)
	made := Session{hex.EncodeToString(id), account, address, now, now, now.Add(AbsoluteLife)}
	text := base64.RawURLEncoding.EncodeToString(secret)
	err := s.tx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE sessions SET ended = 'tooMany' WHERE id IN (
			SELECT id FROM sessions WHERE account = ? AND ended IS NULL ORDER BY created_at DESC, id LIMIT -1 OFFSET ?)`,
			account, maxSessions-1)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, "INSERT INTO sessions ("+sessionColumns+", secret) VALUES (?, ?, ?, ?, ?, ?, ?)",
			made.ID, account, address, now.UnixMilli(), now.UnixMilli(), made.ExpiresAt.UnixMilli(), hashSecret(text))
		return err
	})
	if err != nil {
		return Session{}, "", fmt.Errorf("make session: %w", err)
	}
	return made, text, nil
}

// hashSecret is what is stored of a secret: 256 random bits need no salt.
func hashSecret(text string) []byte {
	sum := sha256.Sum256([]byte(text))
	return sum[:]
}

// find returns the living session of a secret. Errors: ErrNoSession.
func (s *Store) find(ctx context.Context, secret string, now time.Time) (Session, error) {
	got, err := scanSession(s.db.QueryRowContext(ctx,
		"SELECT "+sessionColumns+" FROM sessions WHERE secret = ? AND ended IS NULL", hashSecret(secret)))
	if errors.Is(err, sql.ErrNoRows) {
		return Session{}, ErrNoSession
	}
	if err != nil {
		return Session{}, fmt.Errorf("read session: %w", err)
	}
	if !now.Before(got.Deadline()) {
		return Session{}, ErrNoSession
	}
	return got, nil
}

// active reports whether a session lives, whatever its deadline.
func (s *Store) active(ctx context.Context, id string) (bool, error) {
	var n int
	err := s.db.QueryRowContext(ctx, "SELECT count(*) FROM sessions WHERE id = ? AND ended IS NULL", id).Scan(&n)
	if err != nil {
		return false, fmt.Errorf("read session: %w", err)
	}
	return n == 1, nil
}

// of lists the living sessions of an account, newest first.
func (s *Store) of(ctx context.Context, account string, now time.Time) ([]Session, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT "+sessionColumns+
		" FROM sessions WHERE account = ? AND ended IS NULL ORDER BY created_at DESC, id", account)
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	defer rows.Close()
	var list []Session
	for rows.Next() {
		got, err := scanSession(rows)
		if err != nil {
			return nil, fmt.Errorf("list sessions: %w", err)
		}
		if now.Before(got.Deadline()) {
			list = append(list, got)
		}
	}
	return list, rows.Err()
}

// touch notes that a session was used.
func (s *Store) touch(ctx context.Context, id string, now time.Time) error {
	_, err := s.db.ExecContext(ctx, "UPDATE sessions SET seen_at = ? WHERE id = ? AND ended IS NULL AND seen_at < ?",
		now.UnixMilli(), id, now.UnixMilli())
	if err != nil {
		return fmt.Errorf("touch session: %w", err)
	}
	return nil
}

// end marks a session as ended; its row stays until forget.
func (s *Store) end(ctx context.Context, id, reason string) error {
	_, err := s.db.ExecContext(ctx, "UPDATE sessions SET ended = ? WHERE id = ? AND ended IS NULL", reason, id)
	if err != nil {
		return fmt.Errorf("end session: %w", err)
	}
	return nil
}

func endSessionsOf(ctx context.Context, tx *sql.Tx, account, reason string) error {
	_, err := tx.ExecContext(ctx, "UPDATE sessions SET ended = ? WHERE account = ? AND ended IS NULL", reason, account)
	if err != nil {
		return fmt.Errorf("end sessions: %w", err)
	}
	return nil
}

// expire ends all sessions whose time is over.
func (s *Store) expire(ctx context.Context, now time.Time) error {
	_, err := s.db.ExecContext(ctx, `UPDATE sessions SET ended = 'expired'
		WHERE ended IS NULL AND (expires_at <= ? OR seen_at <= ?)`, now.UnixMilli(), now.Add(-IdleLife).UnixMilli())
	if err != nil {
		return fmt.Errorf("expire sessions: %w", err)
	}
	return nil
}

// ended returns the ids and reasons of sessions that vmctld may not know to
// have ended, at most 256 at a time.
func (s *Store) ended(ctx context.Context) (map[string]string, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT id, ended FROM sessions WHERE ended IS NOT NULL LIMIT 256")
	if err != nil {
		return nil, fmt.Errorf("list ended sessions: %w", err)
	}
	defer rows.Close()
	list := make(map[string]string)
	for rows.Next() {
		var id, reason string
		if err := rows.Scan(&id, &reason); err != nil {
			return nil, fmt.Errorf("list ended sessions: %w", err)
		}
		list[id] = reason
	}
	return list, rows.Err()
}

// forget deletes the row of an ended session.
func (s *Store) forget(ctx context.Context, id string) error {
	if _, err := s.db.ExecContext(ctx, "DELETE FROM sessions WHERE id = ? AND ended IS NOT NULL", id); err != nil {
		return fmt.Errorf("forget session: %w", err)
	}
	return nil
}
