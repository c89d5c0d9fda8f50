// SPDX-License-Identifier: Apache-2.0

// Package store keeps what must outlive the daemon, in SQLite: records of VMs,
// tasks, the journal of events, the audit log, answers for idempotency keys,
// sessions and grants. A change is one transaction that is on the disk when
// Update returns (WAL, synchronous=FULL).
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"vmctl/daemon/api"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Store is the database. It is safe for concurrent use.
type Store struct {
	write *sql.DB // one connection: SQLite has one writer
	read  *sql.DB
	now   func() time.Time

	// updating orders transactions and what follows from them: numbers of
	// events, the cache, and telling readers.
	updating sync.Mutex
	last     int64             // [updating] number of the last event
	tell     func([]api.Event) // [updating]

	cache atomic.Pointer[cache] // replaced by each transaction that changes a VM
}

// Open opens or makes the database at path and brings it to the newest schema.
// A database of a newer daemon is refused.
func Open(ctx context.Context, path string, now func() time.Time) (*Store, error) {
	s := &Store{now: now, tell: func([]api.Event) {}}
	var err error
	if s.write, err = openDB(path, "rw"); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	s.write.SetMaxOpenConns(1)
	if err := s.begin(ctx, path); err != nil {
		return nil, errors.Join(fmt.Errorf("store: %w", err), s.Close())
	}
	return s, nil
}

func (s *Store) begin(ctx context.Context, path string) error {
	if err := migrate(ctx, s.write); err != nil {
		return err
	}
	var err error
	if s.read, err = openDB(path, "ro"); err != nil {
		return err
	}
	s.read.SetMaxOpenConns(4)
	if err := s.write.QueryRowContext(ctx, `SELECT coalesce(max(seq), 0) FROM events`).Scan(&s.last); err != nil {
		return err
	}
	return s.loadCache(ctx)
}

// openDB opens the file. Its mode is that of the state folder: 0700.
func openDB(path, mode string) (*sql.DB, error) {
	q := url.Values{}
	for _, p := range []string{"journal_mode(wal)", "synchronous(full)", "foreign_keys(on)", "busy_timeout(10000)", "trusted_schema(off)"} {
		q.Add("_pragma", p)
	}
	if mode == "rw" {
		mode = "rwc"
		q.Set("_txlock", "immediate")
	} else {
		q.Add("_pragma", "query_only(on)")
		mode = "rw" // a WAL database has no read-only mode without its -shm
	}
	q.Set("mode", mode)
	return sql.Open("sqlite", (&url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: q.Encode()}).String())
}

// Close closes the database.
func (s *Store) Close() error {
	err := s.write.Close()
	if s.read != nil {
		err = errors.Join(err, s.read.Close())
	}
	return err
}

// Tell sets who is told of events once they are durable: one call at a time,
// in the order of their numbers.
func (s *Store) Tell(fn func([]api.Event)) {
	s.updating.Lock()
	defer s.updating.Unlock()
	s.tell = fn
}
