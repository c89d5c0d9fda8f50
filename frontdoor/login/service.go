// SPDX-License-Identifier: Apache-2.0

package login

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"vmctl/frontdoor/problem"
)

// Document is the OpenAPI description of what Service serves.
//
//go:embed openapi.json
var Document []byte

// maxLogin bounds the body of a login in bytes.
const maxLogin = 4096

// wrong is the one answer to an unknown user and to a wrong password.
const wrong = "wrong user or password"

// Service serves /auth/v1. It may be used concurrently.
type Service struct {
	store   *Store
	keeper  *Keeper
	hasher  *hasher
	limiter *limiter
	now     func() time.Time
	log     *slog.Logger
}

// NewService returns a service on the same store that keeper has.
func NewService(store *Store, keeper *Keeper, now func() time.Time, log *slog.Logger) *Service {
	return &Service{store, keeper, newHasher(), newLimiter(), now, log}
}

// Handler serves the paths of Document and no other.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	for path, methods := range map[string]map[string]http.HandlerFunc{
		"/auth/v1/login":         {"POST": s.login},
		"/auth/v1/logout":        {"POST": s.logout},
		"/auth/v1/session":       {"GET": s.session},
		"/auth/v1/sessions":      {"GET": s.sessions},
		"/auth/v1/sessions/{id}": {"DELETE": s.endSession},
		"/auth/v1/openapi.json":  {"GET": s.document},
	} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "no-store")
			if do := methods[r.Method]; do != nil {
				do(w, r)
				return
			}
			for m := range methods {
				w.Header().Set("Allow", m)
			}
			problem.Write(w, http.StatusMethodNotAllowed, problem.MethodNotAllowed, r.Method+" is not for this path")
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		problem.Write(w, http.StatusNotFound, problem.NotFound, "no such path")
	})
	return mux
}

func (s *Service) document(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/openapi+json")
	_, _ = w.Write(Document)
}

type credentials struct {
	User     string `json:"user"`
	Password string `json:"password"`
}

func (s *Service) login(w http.ResponseWriter, r *http.Request) {
	var c credentials
	if !readJSON(w, r, &c) {
		return
	}
	if c.User == "" || c.Password == "" || len(c.User) > 256 || len(c.Password) > maxPassword {
		problem.Write(w, http.StatusUnprocessableEntity, problem.InvalidRequest, "user and password are needed, of at most 256 and 1024 bytes")
		return
	}
	addr := Address(r)
	refund, wait := s.limiter.attempt(addr, c.User, s.now())
	if wait > 0 {
		s.log.Warn("login held back", "user", c.User, "address", addr, "wait", wait)
		problem.RetryAfter(w, http.StatusTooManyRequests, problem.LimitExceeded, wait, "too many wrong passwords: wait")
		return
	}
	ok, err := s.check(r.Context(), c)
	switch {
	case errors.Is(err, ErrBusy):
		refund()
		problem.RetryAfter(w, http.StatusServiceUnavailable, problem.Unavailable, time.Second, ErrBusy.Error())
	case err != nil:
		refund()
		s.fail(w, r, "check password", err)
	case !ok:
		s.log.Warn("login refused", "user", c.User, "address", addr)
		problem.Write(w, http.StatusUnauthorized, problem.Unauthenticated, wrong)
	default:
		refund()
		s.enter(w, r, c.User, addr)
	}
}

// check does the same work whether the account exists or not.
func (s *Service) check(ctx context.Context, c credentials) (bool, error) {
	hash, known, err := s.store.passwordHash(ctx, c.User)
	if err != nil {
		return false, err
	}
	ok, err := s.hasher.match(ctx, hash, c.Password)
	return ok && known, err
}

// enter makes the session. A session that the browser still had ends, so that
// nobody's old cookie can be carried over into a new login.
func (s *Service) enter(w http.ResponseWriter, r *http.Request, account string, addr netip.Addr) {
	if old, err := s.keeper.Find(r); err == nil {
		if err := s.keeper.End(r.Context(), old.ID, "loginAgain"); err != nil {
			s.fail(w, r, "end old session", err)
			return
		}
	}
	made, secret, err := s.store.newSession(r.Context(), account, addr.String(), s.now())
	if err != nil {
		s.fail(w, r, "make session", err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), daemonTimeout)
	defer cancel()
	if err := s.keeper.Register(ctx, &Active{Session: made}); err != nil {
		// It is registered with the first request that needs it.
		s.log.Warn("session is not yet known to vmctld", "session", made.ID, "op", "register session", "err", err)
	}
	s.log.Info("login", "user", account, "address", addr, "session", made.ID)
	http.SetCookie(w, cookie(secret, AbsoluteLife))
	w.WriteHeader(http.StatusNoContent)
}

func (s *Service) logout(w http.ResponseWriter, r *http.Request) {
	a, err := s.keeper.Find(r)
	if err == nil {
		err = s.keeper.End(r.Context(), a.ID, "logout")
	}
	if err != nil && !errors.Is(err, ErrNoSession) {
		s.fail(w, r, "logout", err)
		return
	}
	http.SetCookie(w, cookie("", 0))
	w.WriteHeader(http.StatusNoContent)
}

// view is a session as its owner sees it.
type view struct {
	ID        string    `json:"id"`
	User      string    `json:"user"`
	Principal string    `json:"principal"`
	Groups    []string  `json:"groups"`
	Address   string    `json:"address"`
	CreatedAt time.Time `json:"createdAt"`
	SeenAt    time.Time `json:"seenAt"`
	ExpiresAt time.Time `json:"expiresAt"`
	Current   bool      `json:"current"`
}

func viewOf(s Session, current string) view {
	return view{s.ID, s.Account, s.Principal(), []string{}, s.Address, s.CreatedAt.UTC(), s.SeenAt.UTC(), s.Deadline().UTC(), s.ID == current}
}

func (s *Service) session(w http.ResponseWriter, r *http.Request) {
	if a := s.Require(w, r); a != nil {
		writeJSON(w, viewOf(a.Session, a.ID))
	}
}

func (s *Service) sessions(w http.ResponseWriter, r *http.Request) {
	a := s.Require(w, r)
	if a == nil {
		return
	}
	list, err := s.store.of(r.Context(), a.Account, s.now())
	if err != nil {
		s.fail(w, r, "list sessions", err)
		return
	}
	items := make([]view, len(list))
	for i, one := range list {
		items[i] = viewOf(one, a.ID)
	}
	writeJSON(w, map[string]any{"items": items})
}

// endSession ends one of the caller's own sessions.
func (s *Service) endSession(w http.ResponseWriter, r *http.Request) {
	a := s.Require(w, r)
	if a == nil {
		return
	}
	list, err := s.store.of(r.Context(), a.Account, s.now())
	if err != nil {
		s.fail(w, r, "list sessions", err)
		return
	}
	for _, one := range list {
		if one.ID != r.PathValue("id") {
			continue
		}
		if err := s.keeper.End(r.Context(), one.ID, "revoked"); err != nil {
			s.fail(w, r, "end session", err)
			return
		}
		w.WriteHeader(http.StatusNoContent)
		return
	}
	problem.Write(w, http.StatusNotFound, problem.NotFound, "no such session")
}

// Require returns the session of a request, or nil after it has answered 401.
func (s *Service) Require(w http.ResponseWriter, r *http.Request) *Active {
	a, err := s.keeper.Find(r)
	if errors.Is(err, ErrNoSession) {
		problem.Write(w, http.StatusUnauthorized, problem.Unauthenticated, "log in first")
		return nil
	}
	if err != nil {
		s.fail(w, r, "find session", err)
		return nil
	}
	return a
}

func (s *Service) fail(w http.ResponseWriter, r *http.Request, op string, err error) {
	if r.Context().Err() == nil { // who has left is no defect
		s.log.Error("cannot answer", "op", op, "request", w.Header().Get(problem.HeaderRequestID), "err", err)
	}
	problem.Write(w, http.StatusInternalServerError, problem.Internal, "this is a defect; the log has more")
}

// Address is where a connection comes from. Headers have no say in it.
func Address(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.IPv6Unspecified()
	}
	return ap.Addr().Unmap().WithZone("")
}

// readJSON reads one JSON value with known fields alone, or answers.
func readJSON(w http.ResponseWriter, r *http.Request, into any) bool {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		problem.Write(w, http.StatusUnsupportedMediaType, problem.InvalidRequest, "the body must be application/json")
		return false
	}
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxLogin))
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	if err == nil {
		if _, err = dec.Token(); err == io.EOF {
			return true
		}
		err = errors.New("more than one value")
	}
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		problem.Write(w, http.StatusRequestEntityTooLarge, problem.TooLarge, "the body is too large")
	case errors.Is(err, os.ErrDeadlineExceeded):
		problem.Write(w, http.StatusRequestTimeout, problem.TooSlow, "the body did not arrive in time")
	case strings.HasPrefix(err.Error(), "json: unknown field"):
		problem.Write(w, http.StatusUnprocessableEntity, problem.UnknownField, strings.TrimPrefix(err.Error(), "json: "))
	default:
		problem.Write(w, http.StatusBadRequest, problem.InvalidRequest, "the body is not the JSON that is needed")
	}
	return false
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // an error is a peer that left
}
