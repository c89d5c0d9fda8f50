// SPDX-License-Identifier: Apache-2.0

package login

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// fakeDaemon is vmctld as sessions see it; it may be away.
type fakeDaemon struct {
	mu    sync.Mutex
	known map[string]bool
	away  bool
}

var errFake = errors.New("away")

func (d *fakeDaemon) set(id string, known bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.away {
		return errFake
	}
	if d.known[id] = true; !known {
		delete(d.known, id)
	}
	return nil
}

func (d *fakeDaemon) Register(_ context.Context, s Session) error { return d.set(s.ID, true) }
func (d *fakeDaemon) Ended(_ context.Context, id string) error    { return d.set(id, false) }
func (d *fakeDaemon) IsEnded(error) bool                          { return false }

type fixture struct {
	*Keeper
	daemon *fakeDaemon
	at     time.Time
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	s, err := OpenStore(t.Context(), filepath.Join(t.TempDir(), "a b?.db"), true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := s.SetPassword(t.Context(), "ann", "long enough", true, start); err != nil {
		t.Fatal(err)
	}
	f := &fixture{daemon: &fakeDaemon{known: make(map[string]bool)}, at: start}
	f.Keeper = NewKeeper(s, f.daemon, func() time.Time { return f.at }, slog.New(slog.NewTextHandler(io.Discard, nil)))
	return f
}

func (f *fixture) enter(t *testing.T) *http.Request {
	t.Helper()
	_, secret, err := f.store.newSession(t.Context(), "ann", "::1", f.at)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
	r.AddCookie(cookie(secret, AbsoluteLife))
	return r
}

func (f *fixture) rows(t *testing.T) (n int) {
	t.Helper()
	if err := f.store.db.QueryRow("SELECT count(*) FROM sessions").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// A session ends eight hours after its last use, and a day after its start.
func TestExpiry(t *testing.T) {
	f := newFixture(t)
	idle, busy := f.enter(t), f.enter(t)
	old, err := f.Find(idle)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Ensure(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	for f.at.Sub(start) < AbsoluteLife {
		if _, err := f.Find(busy); err != nil {
			t.Fatalf("after %s: %v", f.at.Sub(start), err)
		}
		f.at = f.at.Add(IdleLife - time.Second)
		if f.at.Sub(start) < IdleLife {
			f.Sweep(t.Context())
			if _, err := f.store.find(t.Context(), "x", f.at); !errors.Is(err, ErrNoSession) {
				t.Error(err)
			}
			continue
		}
		if _, err := f.Find(idle); !errors.Is(err, ErrNoSession) {
			t.Errorf("idle session after %s: %v", f.at.Sub(start), err)
		}
	}
	if _, err := f.Find(busy); !errors.Is(err, ErrNoSession) {
		t.Errorf("after a day: %v", err)
	}
	f.Sweep(t.Context())
	var ended *EndedError
	if !errors.As(context.Cause(old.Context), &ended) || ended.Reason != "expired" {
		t.Errorf("what runs in it ends with %v", context.Cause(old.Context))
	}
	if len(f.daemon.known) != 0 || f.rows(t) != 0 || len(f.live) != 0 {
		t.Errorf("left: vmctld %v, %d rows, %d live", f.daemon.known, f.rows(t), len(f.live))
	}
}

// An end while vmctld is away is told later, and forgotten only then.
func TestEndWhileAway(t *testing.T) {
	f := newFixture(t)
	a, err := f.Find(f.enter(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Register(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	f.daemon.away = true
	if err := f.End(t.Context(), a.ID, "logout"); err != nil {
		t.Fatal(err)
	}
	f.Sweep(t.Context())
	if a.Context.Err() == nil || f.rows(t) != 1 {
		t.Errorf("context %v, %d rows", a.Context.Err(), f.rows(t))
	}
	f.daemon.away = false
	f.Sweep(t.Context())
	if len(f.daemon.known) != 0 || f.rows(t) != 0 {
		t.Errorf("vmctld knows %v, %d rows", f.daemon.known, f.rows(t))
	}
}

// A request that still runs cannot bring its ended session back to vmctld.
func TestLateRegistration(t *testing.T) {
	f := newFixture(t)
	a, err := f.Find(f.enter(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.End(t.Context(), a.ID, "logout"); err != nil {
		t.Fatal(err)
	}
	if err := f.Register(t.Context(), a); !errors.Is(err, ErrNoSession) {
		t.Errorf("error is %v", err)
	}
	if len(f.daemon.known) != 0 {
		t.Errorf("vmctld knows %v", f.daemon.known)
	}
}

func TestTooManySessions(t *testing.T) {
	f := newFixture(t)
	first := f.enter(t)
	for range maxSessions {
		f.at = f.at.Add(time.Second)
		f.enter(t)
	}
	if _, err := f.Find(first); !errors.Is(err, ErrNoSession) {
		t.Errorf("the oldest: %v", err)
	}
	if list, err := f.store.of(t.Context(), "ann", f.at); err != nil || len(list) != maxSessions {
		t.Errorf("%d sessions, %v", len(list), err)
	}
}

func TestCookies(t *testing.T) {
	f := newFixture(t)
	r := f.enter(t)
	good := r.Header.Get("Cookie")
	for name, c := range map[string][]string{
		"none": nil, "empty": {CookieName + "="}, "short": {CookieName + "=abc"}, "other": {CookieName + "=" + strings.Repeat("A", 43)},
		"twice": {good + "; " + good}, "two headers": {good, good}, "other name": {strings.Replace(good, "__Host-", "", 1)},
	} {
		r.Header["Cookie"] = c
		if _, err := f.Find(r); !errors.Is(err, ErrNoSession) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.Header["Cookie"] = []string{"a=b; " + good}
	if _, err := f.Find(r); err != nil {
		t.Error(err)
	}
}

func TestPasswords(t *testing.T) {
	hash := hashPassword("correct horse")
	if !strings.HasPrefix(hash, "$argon2id$v=19$m=19456,t=2,p=1$") || hash == hashPassword("correct horse") {
		t.Errorf("hash is %s", hash)
	}
	for password, want := range map[string]bool{"correct horse": true, "correct hors": false, "": false} {
		if ok, err := matchPassword(hash, password); ok != want || err != nil {
			t.Errorf("%q: %v %v", password, ok, err)
		}
	}
	if ok, err := matchPassword(nobody, "anything"); ok || err != nil {
		t.Errorf("nobody: %v %v", ok, err)
	}
	for _, bad := range []string{"", "$argon2id$v=19$m=1,t=1,p=1$AA$AA", phcPrefix + "!$AA", phcPrefix + "AA$AA"} {
		if ok, err := matchPassword(bad, "x"); ok || !errors.Is(err, errHash) {
			t.Errorf("%q: %v %v", bad, ok, err)
		}
	}
	f := newFixture(t)
	for _, p := range []string{"short", strings.Repeat("x", maxPassword+1)} {
		if err := f.store.SetPassword(t.Context(), "ann", p, false, start); !errors.Is(err, ErrPassword) {
			t.Errorf("%d bytes: %v", len(p), err)
		}
	}
}

// With the queue full the next is turned away; who gives up leaves it.
func TestHasherQueue(t *testing.T) {
	h := newHasher()
	h.working <- struct{}{} // somebody works
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for range maxWaiting + 1 {
		all.Go(func() {
			if _, err := h.match(ctx, nobody, "x"); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	for len(h.waiting) < maxWaiting+1 {
		time.Sleep(time.Millisecond) // each is at its place only then
	}
	if _, err := h.match(ctx, nobody, "x"); !errors.Is(err, ErrBusy) {
		t.Errorf("one too many: %v", err)
	}
	cancel()
	all.Wait()
	<-h.working
	if _, err := h.match(t.Context(), nobody, "x"); err != nil || len(h.waiting) != 0 {
		t.Errorf("afterwards: %v, %d wait", err, len(h.waiting))
	}
}

func TestLimiter(t *testing.T) {
	l := newLimiter()
	here, there := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	for i := range 5 {
		if _, wait := l.attempt(here, "ann", start); wait > 0 {
			t.Fatalf("attempt %d waits %s", i, wait)
		}
	}
	if _, wait := l.attempt(here, "ann", start); wait != 12*time.Second {
		t.Errorf("sixth waits %s", wait)
	}
	if _, wait := l.attempt(there, "ann", start); wait > 0 {
		t.Errorf("elsewhere waits %s", wait)
	}
	if _, wait := l.attempt(here, "ann", start.Add(12*time.Second)); wait > 0 {
		t.Errorf("later waits %s", wait)
	}
	// A right password is given back: it can be used as often as one likes.
	for range 100 {
		refund, wait := l.attempt(there, "bob", start)
		if wait > 0 {
			t.Fatalf("right password waits %s", wait)
		}
		refund()
	}
	// One address cannot use up what a user has: over an hour of trying it
	// gets less than the user's bucket regains.
	l, tried := newLimiter(), 0
	for s := range 3600 {
		if _, wait := l.attempt(here, "ann", start.Add(time.Duration(s)*time.Second)); wait == 0 {
			tried++
		}
	}
	if tried > 5+300 {
		t.Errorf("%d attempts in an hour", tried)
	}
	if _, wait := l.attempt(there, "ann", start.Add(time.Hour)); wait > 0 {
		t.Errorf("the user is locked out for %s", wait)
	}
	// One IPv6 customer has 2^64 addresses, and one bucket.
	l = newLimiter()
	for i := range 20 {
		a := netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(i)})
		l.attempt(a, string(rune('a'+i)), start)
	}
	if _, wait := l.attempt(netip.MustParseAddr("2001:db8::ffff:1"), "zed", start); wait == 0 {
		t.Error("a /64 has more than one bucket")
	}
	for i := range maxBuckets + 100 {
		l.user.get(string(rune(i)), start)
	}
	if len(l.user.by) > maxBuckets {
		t.Errorf("%d buckets", len(l.user.by))
	}
}

// The document describes what is served, no more and no less.
func TestDocument(t *testing.T) {
	var doc struct {
		Paths      map[string]map[string]struct{ OperationID string }
		Components struct {
			Schemas map[string]struct {
				Required   []string
				Properties map[string]any
			}
		}
	}
	if err := json.Unmarshal(Document, &doc); err != nil {
		t.Fatal(err)
	}
	f := newFixture(t)
	h := NewService(f.store, f.Keeper, f.now, f.log).Handler()
	for path, methods := range doc.Paths {
		for _, m := range []string{"GET", "POST", "PUT", "DELETE", "PATCH"} {
			_, described := methods[strings.ToLower(m)]
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), m, strings.Replace(path, "{id}", "x", 1), nil))
			if served := w.Code != 405 && w.Code != 404; served != described {
				t.Errorf("%s %s: described %v, answers %d", m, path, described, w.Code)
			}
		}
	}
	fields := func(v any) map[string]bool {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var m map[string]any
		if err := json.Unmarshal(text, &m); err != nil {
			t.Fatal(err)
		}
		names := make(map[string]bool)
		for name := range m {
			names[name] = true
		}
		return names
	}
	for name, v := range map[string]any{"Session": view{}, "Credentials": credentials{}} {
		want := make(map[string]bool)
		for p := range doc.Components.Schemas[name].Properties {
			want[p] = true
		}
		if got := fields(v); !reflect.DeepEqual(got, want) || len(doc.Components.Schemas[name].Required) != len(want) {
			t.Errorf("%s has %v, described %v", name, got, want)
		}
	}
}

// The file of a newer program is left alone.
func TestNewerSchema(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	s, err := OpenStore(t.Context(), path, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.db.Exec("PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStore(t.Context(), path, false); err == nil || !strings.Contains(err.Error(), "newer") {
		t.Errorf("error is %v", err)
	}
}
