// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"vmctl/daemon/api"
)

const (
	maxSessions   = 20_000
	maxSession    = 7 * 24 * time.Hour // from now to expiresAt
	sessionsSweep = 5 * time.Second
)

// SessionStore keeps sessions over a restart.
type SessionStore interface {
	Sessions(ctx context.Context) (map[string]api.SessionPut, error)
	PutSession(ctx context.Context, id string, s api.SessionPut, fresh bool) error
	EndSession(ctx context.Context, id, principal string) error
}

// Sessions is the register of login sessions at vmhttp. It is safe for
// concurrent use.
type Sessions struct {
	store SessionStore
	ended func(id string) // called after a session has ended
	now   func() time.Time
	log   *slog.Logger

	mu   sync.Mutex
	live map[string]*session // [mu]
}

type session struct {
	put  api.SessionPut
	done chan struct{}
}

// OpenSessions reads the register. ended is called for each session that ends,
// so that its consoles are closed.
func OpenSessions(ctx context.Context, store SessionStore, ended func(id string), now func() time.Time, log *slog.Logger) (*Sessions, error) {
	kept, err := store.Sessions(ctx)
	if err != nil {
		return nil, err
	}
	s := &Sessions{store: store, ended: ended, now: now, log: log, live: make(map[string]*session, len(kept))}
	for id, put := range kept {
		s.live[id] = &session{put: put, done: make(chan struct{})}
	}
	return s, nil
}

// Put registers a session, or moves the end of one that belongs to the same
// principal. The error is an *api.Error.
func (s *Sessions) Put(ctx context.Context, id string, put api.SessionPut) error {
	now := s.now()
	switch {
	case !Principal(put.Principal).frontUser():
		return &api.Error{Code: api.CodeInvalidRequest, Field: "body.principal", Detail: "not a user that can log in at the front door"}
	case !put.ExpiresAt.After(now) || put.ExpiresAt.After(now.Add(maxSession)):
		return &api.Error{Code: api.CodeInvalidRequest, Field: "body.expiresAt", Detail: "not within the next seven days"}
	}
	for _, g := range put.Groups {
		if !Principal(g).frontGroup() {
			return &api.Error{Code: api.CodeInvalidRequest, Field: "body.groups", Detail: "not a group of the front door"}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.live[id]
	switch {
	case old != nil && old.put.Principal != put.Principal:
		return &api.Error{Code: api.CodeConflict, Detail: "the session is another user's"}
	case old == nil && len(s.live) >= maxSessions:
		return &api.Error{Code: api.CodeLimitExceeded, Detail: "too many sessions"}
	}
	// Under the lock: what is on the disk and what is here never differ in order.
	if err := s.store.PutSession(ctx, id, put, old == nil); err != nil {
		return err
	}
	if old != nil {
		old.put = put
		return nil
	}
	s.live[id] = &session{put: put, done: make(chan struct{})}
	return nil
}

// End ends a session: its streams and consoles close. One that is not there
// has ended, which is no error.
func (s *Sessions) End(ctx context.Context, id string) error {
	s.mu.Lock()
	old := s.live[id]
	if old == nil {
		s.mu.Unlock()
		return nil
	}
	err := s.store.EndSession(ctx, id, old.put.Principal)
	if err == nil {
		delete(s.live, id)
		close(old.done)
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	s.ended(id)
	return nil
}

// Valid reports whether the session is registered for p and has not ended.
func (s *Sessions) Valid(id string, p Principal) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.live[id]
	return l != nil && l.put.Principal == string(p) && l.put.ExpiresAt.After(s.now())
}

// Done is closed when the session ends; it is closed for one that is not there.
func (s *Sessions) Done(id string) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.live[id]; l != nil {
		return l.done
	}
	done := make(chan struct{})
	close(done)
	return done
}

// Run ends sessions that expire, until ctx ends.
func (s *Sessions) Run(ctx context.Context) {
	tick := time.NewTicker(sessionsSweep)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.sweep(ctx)
		}
	}
}

func (s *Sessions) sweep(ctx context.Context) {
	now := s.now()
	var over []string
	s.mu.Lock()
	for id, l := range s.live {
		if !l.put.ExpiresAt.After(now) {
			over = append(over, id)
		}
	}
	s.mu.Unlock()
	for _, id := range over {
		if err := s.End(ctx, id); err != nil {
			s.log.Error("session not ended", "op", "sweep", "err", err)
		}
	}
}
