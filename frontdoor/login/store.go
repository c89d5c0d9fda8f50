// SPDX-License-Identifier: Apache-2.0

// Package login knows who may enter by the front door: local accounts, their
// passwords, and login sessions. All of it are rows in one SQLite file in the
// front door's state folder; the rows are the truth, also for a session that
// another process (vmhttp passwd) has ended.
package login

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// Errors of this package, to be told apart with errors.Is.
var (
	// ErrNoAccount: there is no such account.
	ErrNoAccount = errors.New("no such account")
	// ErrName: not a name that an account can have.
	ErrName = errors.New("an account's name is 1 to 32 of a-z 0-9 . _ - and begins with a letter")
	// ErrPassword: a password that is too short or too long to be set.
	ErrPassword = errors.New("a password has 10 to 1024 bytes")
	// ErrNoSession: no login session, or one that has ended.
	ErrNoSession = errors.New("no login session")
	// ErrBusy: too many wait for their password to be checked.
	ErrBusy = errors.New("too many logins at once")
)

// migrations are run in order, each once; PRAGMA user_version counts them.
// A row of this table is never changed after it was released.
var migrations = [...]string{`
CREATE TABLE accounts (
	name       TEXT PRIMARY KEY,
	hash       TEXT NOT NULL,      -- argon2id, PHC string
	created_at INTEGER NOT NULL,   -- all times: ms since the epoch
	changed_at INTEGER NOT NULL
) STRICT;
CREATE TABLE sessions (
	id         TEXT PRIMARY KEY,   -- public: in logs and at vmctld
	secret     BLOB NOT NULL UNIQUE, -- SHA-256 of the cookie's value
	account    TEXT NOT NULL REFERENCES accounts(name) ON DELETE CASCADE,
	address    TEXT NOT NULL,      -- where the login came from
	created_at INTEGER NOT NULL,
	seen_at    INTEGER NOT NULL,
	expires_at INTEGER NOT NULL,
	ended      TEXT                -- reason, until vmctld knows; then the row goes
) STRICT;
CREATE INDEX sessions_account ON sessions(account);
`}

// Store is the SQLite file. It may be used concurrently, also by processes.
type Store struct {
	db *sql.DB
}

// OpenStore opens the file at path. With create false the file must be there.
func OpenStore(ctx context.Context, path string, create bool) (*Store, error) {
	if !create {
		if _, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("open accounts: %w", err)
		}
	}
	dsn := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: url.Values{
		"_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)"},
		"_txlock": {"immediate"},
	}.Encode()}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, fmt.Errorf("open accounts: %w", err)
	}
	db.SetMaxOpenConns(4)
	s := &Store{db}
	if err := s.migrate(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open accounts %s: %w", path, err), db.Close())
	}
	return s, nil
}

// Close closes the file.
func (s *Store) Close() error { return s.db.Close() }

func (s *Store) migrate(ctx context.Context) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		var have int
		if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&have); err != nil {
			return err
		}
		if have > len(migrations) {
			return fmt.Errorf("schema %d is newer than this program's %d", have, len(migrations))
		}
		for _, m := range migrations[have:] {
			if _, err := tx.ExecContext(ctx, m); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", len(migrations)))
		return err
	})
}

func (s *Store) tx(ctx context.Context, do func(*sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := do(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}
