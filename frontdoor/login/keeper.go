// SPDX-License-Identifier: Apache-2.0

package login

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Daemon is what a session needs of vmctld.
type Daemon interface {
	// Register makes a session known, also when it is already.
	Register(ctx context.Context, s Session) error
	// Ended says that a session is over: its streams and consoles close.
	Ended(ctx context.Context, id string) error
	// IsEnded reports whether an error of Register means that vmctld holds
	// the session for ended.
	IsEnded(err error) bool
}

// EndedError is the cause with which a session's context is cancelled.
type EndedError struct{ Reason string }

func (e *EndedError) Error() string { return "session ended: " + e.Reason }

// sweepEvery is how late an ending that another process wrote, or an expiry,
// reaches what runs in a session. New requests see it at once.
const sweepEvery = 5 * time.Second

// daemonTimeout is how long a login or a logout waits for vmctld.
const daemonTimeout = 3 * time.Second

// Keeper holds what runs in each session together and ends it with the
// session. Its map holds living sessions that were used since the start.
type Keeper struct {
	store  *Store
	daemon Daemon
	now    func() time.Time
	log    *slog.Logger

	root context.Context
	stop context.CancelCauseFunc

	failing atomic.Bool // the last sweep failed

	mu   sync.Mutex
	live map[string]*live // guarded by mu
}

type live struct {
	ctx        context.Context
	cancel     context.CancelCauseFunc
	registered bool // guarded by Keeper.mu
}

// NewKeeper makes a keeper. Run must be called for sessions to expire.
func NewKeeper(store *Store, daemon Daemon, now func() time.Time, log *slog.Logger) *Keeper {
	root, stop := context.WithCancelCause(context.Background())
	return &Keeper{store: store, daemon: daemon, now: now, log: log, root: root, stop: stop, live: make(map[string]*live)}
}

// Run sweeps until ctx is done; then it cancels what runs in any session,
// with context.Canceled as the cause. The sessions themselves go on.
func (k *Keeper) Run(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		k.Sweep(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			k.stop(context.Canceled)
			return
		}
	}
}

// Active is a living session and the context of all that runs in it, which is
// cancelled with an *EndedError when it ends.
type Active struct {
	Session
	Context context.Context
}

// Find returns the session of a request, or ErrNoSession, and notes its use.
func (k *Keeper) Find(r *http.Request) (*Active, error) {
	secret, ok := readCookie(r)
	if !ok {
		return nil, ErrNoSession
	}
	now := k.now()
	s, err := k.store.find(r.Context(), secret, now)
	if err != nil {
		return nil, err
	}
	l, err := k.join(r.Context(), s.ID)
	if err != nil {
		return nil, err
	}
	if now.Sub(s.SeenAt) >= seenEvery {
		if err := k.store.touch(r.Context(), s.ID, now); err != nil {
			return nil, err
		}
		s.SeenAt = now
	}
	return &Active{s, l.ctx}, nil
}

// join returns the live part of a session. After it was made anew the row is
// read once more: whoever ends a session changes the row first and then looks
// for the live part, so one of both sides sees the other.
func (k *Keeper) join(ctx context.Context, id string) (*live, error) {
	k.mu.Lock()
	l := k.live[id]
	if l != nil {
		k.mu.Unlock()
		return l, nil
	}
	l = &live{}
	l.ctx, l.cancel = context.WithCancelCause(k.root)
	k.live[id] = l
	k.mu.Unlock()
	ok, err := k.store.active(ctx, id)
	if err != nil || !ok {
		k.drop(id, "ended")
		return nil, errors.Join(ErrNoSession, err)
	}
	return l, nil
}

func (k *Keeper) drop(id, reason string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l := k.live[id]; l != nil {
		l.cancel(&EndedError{reason})
		delete(k.live, id)
	}
}

// Touch notes that a session is in use by what Find does not see: typing.
func (k *Keeper) Touch(ctx context.Context, id string) error { return k.store.touch(ctx, id, k.now()) }

// Ensure registers the session with vmctld unless this process has done so.
func (k *Keeper) Ensure(ctx context.Context, a *Active) error {
	k.mu.Lock()
	l := k.live[a.ID]
	done := l != nil && l.registered
	k.mu.Unlock()
	if done {
		return nil
	}
	return k.Register(ctx, a)
}

// Register registers the session with vmctld, again if need be. When vmctld
// holds it for ended it ends here too, and the error is ErrNoSession.
func (k *Keeper) Register(ctx context.Context, a *Active) error {
	err := k.daemon.Register(ctx, a.Session)
	if err != nil && k.daemon.IsEnded(err) {
		return errors.Join(ErrNoSession, k.End(ctx, a.ID, "endedByDaemon"))
	}
	if err != nil {
		return err
	}
	// It may have ended in between, with vmctld told before it was registered
	// here. The row is changed before vmctld is told, so this sees it.
	ok, err := k.store.active(ctx, a.ID)
	if err != nil {
		return err
	}
	if !ok {
		return errors.Join(ErrNoSession, k.daemon.Ended(ctx, a.ID))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if l := k.live[a.ID]; l != nil {
		l.registered = true
	}
	return nil
}

// End ends a session here and at vmctld. When vmctld is away it is told later.
func (k *Keeper) End(ctx context.Context, id, reason string) error {
	if err := k.store.end(ctx, id, reason); err != nil {
		return err
	}
	if err := k.finish(ctx, id, reason); err != nil {
		k.log.Warn("vmctld will be told later that a session ended", "session", id, "op", "end session", "err", err)
	}
	return nil
}

// finish tells vmctld of an ended session and closes what runs in it. The
// daemon comes first, so that it can say goodbye in its streams.
func (k *Keeper) finish(ctx context.Context, id, reason string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), daemonTimeout)
	defer cancel()
	err := k.daemon.Ended(ctx, id)
	k.drop(id, reason)
	if err != nil {
		return err
	}
	k.log.Info("session ended", "session", id, "reason", reason)
	return k.store.forget(ctx, id)
}

// Sweep ends the sessions whose time is over or that another process ended.
// Of a row of failures it logs the first.
func (k *Keeper) Sweep(ctx context.Context) {
	err := k.sweep(ctx)
	if err != nil && !k.failing.Swap(true) && ctx.Err() == nil {
		k.log.Error("sessions are not swept, will try on", "op", "sweep", "err", err)
	}
	if err == nil {
		k.failing.Store(false)
	}
}

func (k *Keeper) sweep(ctx context.Context) error {
	if err := k.store.expire(ctx, k.now()); err != nil {
		return err
	}
	over, err := k.store.ended(ctx)
	if err != nil {
		return err
	}
	for id, reason := range over {
		k.drop(id, reason)
	}
	if err := k.dropStrays(ctx); err != nil {
		return err
	}
	for id, reason := range over {
		if err := k.finish(ctx, id, reason); err != nil {
			return err // vmctld is away: all others would wait as long
		}
	}
	return nil
}

// dropStrays closes what runs in sessions whose rows are gone altogether, as
// when another front door on the same file has ended them.
func (k *Keeper) dropStrays(ctx context.Context) error {
	k.mu.Lock()
	ids := make([]string, 0, len(k.live))
	for id := range k.live {
		ids = append(ids, id)
	}
	k.mu.Unlock()
	for _, id := range ids {
		ok, err := k.store.active(ctx, id)
		if err != nil {
			return fmt.Errorf("check session: %w", err)
		}
		if !ok {
			k.drop(id, "ended")
		}
	}
	return nil
}
