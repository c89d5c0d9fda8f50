// SPDX-License-Identifier: Apache-2.0

// Package proxy passes /api/v1 on to vmctld's /v1, as the user who is logged
// in. What it passes on is named here; all else stays behind, whatever it is
// called and however it is spelled.
package proxy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"os"
	"strings"
	"sync"
	"time"

	"vmctl/frontdoor/edge"
	"vmctl/frontdoor/login"
	"vmctl/frontdoor/problem"
	"vmctl/frontdoor/sign"
	"vmctl/frontdoor/upstream"
)

// Prefix is where the daemon's API begins; behind it, "/api" is cut off.
const Prefix = "/api/v1/"

// maxPerSession is how many requests of one session may be under way, streams
// included. Each may hold a body of 1 MiB.
const maxPerSession = 64

const retryAfter = 2 * time.Second

// passed are the headers of a request that reach vmctld. An identity can only
// come from the session: no list of dangerous names would ever be complete.
var passed = [...]string{
	"Accept", "Accept-Language", "Cache-Control", "Content-Type", "Idempotency-Key",
	"If-Match", "If-Modified-Since", "If-None-Match", "Last-Event-Id", "Prefer", "User-Agent",
}

// Proxy is the handler of Prefix.
type Proxy struct {
	daemon *upstream.Client
	logins *login.Service
	keeper *login.Keeper
	log    *slog.Logger
	pool   bufferPool

	mu   sync.Mutex
	busy map[string]int // requests under way by session; guarded by mu
}

// New returns a handler that asks daemon as the user of the session.
func New(daemon *upstream.Client, logins *login.Service, keeper *login.Keeper, log *slog.Logger) *Proxy {
	return &Proxy{daemon: daemon, logins: logins, keeper: keeper, log: log, busy: make(map[string]int)}
}

// ServeHTTP answers problems of its own: unauthenticated, tooLarge, tooSlow,
// limitExceeded, methodNotAllowed, notFound, unavailable.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
	default:
		problem.Write(w, http.StatusMethodNotAllowed, problem.MethodNotAllowed, "no such method")
		return
	}
	path, raw, ok := behind(r)
	if !ok {
		problem.Write(w, http.StatusNotFound, problem.NotFound, "no such path")
		return
	}
	a := p.logins.Require(w, r)
	if a == nil {
		return
	}
	if !p.enter(a.ID) {
		problem.RetryAfter(w, http.StatusTooManyRequests, problem.LimitExceeded, time.Second, "too many requests of this session are under way")
		return
	}
	defer p.leave(a.ID)
	body, ok := readBody(w, r)
	if !ok {
		return
	}
	// The request ends with the session.
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	defer context.AfterFunc(a.Context, func() { cancel(context.Cause(a.Context)) })()
	p.pass(w, r.WithContext(ctx), a, path, raw, body)
}

// behind is the path of a request as vmctld gets it, decoded and raw.
func behind(r *http.Request) (path, raw string, ok bool) {
	path, ok = strings.CutPrefix(r.URL.Path, "/api")
	if !ok || r.URL.RawPath == "" {
		return path, "", ok
	}
	raw, ok = strings.CutPrefix(r.URL.RawPath, "/api")
	return path, raw, ok
}

func (p *Proxy) enter(session string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.busy[session] >= maxPerSession {
		return false
	}
	p.busy[session]++
	return true
}

func (p *Proxy) leave(session string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.busy[session]--; p.busy[session] == 0 {
		delete(p.busy, session)
	}
}

// readBody reads all of a body, as its digest is signed, or answers.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, bool) {
	if r.ContentLength > sign.MaxBody {
		problem.Write(w, http.StatusRequestEntityTooLarge, problem.TooLarge, "a body has at most 1 MiB")
		return nil, false
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, sign.MaxBody))
	var large *http.MaxBytesError
	switch {
	case err == nil:
		edge.BodyRead(w)
		return body, true
	case errors.As(err, &large):
		problem.Write(w, http.StatusRequestEntityTooLarge, problem.TooLarge, "a body has at most 1 MiB")
	case errors.Is(err, os.ErrDeadlineExceeded):
		problem.Write(w, http.StatusRequestTimeout, problem.TooSlow, "the body did not arrive in time")
	default:
		problem.Write(w, http.StatusBadRequest, problem.InvalidRequest, "the body cannot be read")
	}
	return nil, false
}

// Caller is the identity of a session for one request from its browser.
func Caller(a *login.Active, keeper *login.Keeper, r *http.Request) upstream.Caller {
	return upstream.Caller{
		ID:   sign.Identity{User: a.Principal(), Session: a.ID, Address: login.Address(r).String()},
		Join: func(ctx context.Context) error { return keeper.Register(ctx, a) },
	}
}

func (p *Proxy) pass(w http.ResponseWriter, r *http.Request, a *login.Active, path, raw string, body []byte) {
	if err := p.keeper.Ensure(r.Context(), a); err != nil {
		p.fail(w, r, err)
		return
	}
	rp := httputil.ReverseProxy{
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.Out.Header = forward(r.Header, w.Header().Get(problem.HeaderRequestID))
			pr.Out.URL.Path, pr.Out.URL.RawPath = path, raw
			pr.Out.URL.RawQuery, pr.Out.URL.ForceQuery = r.URL.RawQuery, r.URL.ForceQuery
			pr.Out.Body = http.NoBody // the transport has the body
		},
		Transport:      p.daemon.As(Caller(a, p.keeper, r), body),
		FlushInterval:  -1, // an event is of use at once
		BufferPool:     &p.pool,
		ModifyResponse: answer,
		ErrorHandler:   p.fail,
		ErrorLog:       slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
	}
	rp.ServeHTTP(w, r)
}

// forward takes what may pass of a request's headers.
func forward(in http.Header, requestID string) http.Header {
	out := http.Header{problem.HeaderRequestID: {requestID}}
	for _, name := range passed {
		if v := in[name]; len(v) > 0 {
			out[name] = v
		}
	}
	if out["User-Agent"] == nil {
		out["User-Agent"] = []string{""} // else net/http adds its own
	}
	return out
}

// answer keeps what is the front door's to say out of vmctld's answer, and
// makes its links lead through the front door.
func answer(res *http.Response) error {
	for name := range res.Header {
		if edge.Secured(name) || name == problem.HeaderRequestID || name == "Set-Cookie" || strings.HasPrefix(name, "Access-Control-") {
			delete(res.Header, name)
		}
	}
	if at := res.Header.Get("Location"); strings.HasPrefix(at, "/v1/") {
		res.Header.Set("Location", "/api"+at)
	}
	if res.Header.Get("Cache-Control") == "" {
		res.Header.Set("Cache-Control", "no-store")
	}
	return nil
}

// fail answers when vmctld did not.
func (p *Proxy) fail(w http.ResponseWriter, r *http.Request, err error) {
	var ended *login.EndedError
	switch {
	case errors.Is(err, login.ErrNoSession), errors.Is(err, upstream.ErrEnded), errors.As(context.Cause(r.Context()), &ended):
		problem.Write(w, http.StatusUnauthorized, problem.Unauthenticated, "the login session has ended")
	case r.Context().Err() != nil:
		problem.Write(w, http.StatusServiceUnavailable, problem.Unavailable, "the request was given up") // nobody is there to read it
	default:
		p.log.Error("vmctld does not answer", "op", "proxy", "request", w.Header().Get(problem.HeaderRequestID), "err", err)
		Away(w, err)
	}
}

// Away answers that vmctld is not there, or does not trust us.
func Away(w http.ResponseWriter, err error) {
	detail := "vmctld is not there; a request that changes something may or may not have been carried out"
	if errors.Is(err, upstream.ErrRefused) {
		detail = "vmctld does not accept the front door's signature: do both have the same key?"
	}
	problem.RetryAfter(w, http.StatusServiceUnavailable, problem.Unavailable, retryAfter, detail)
}

// bufferPool lends the buffers that answers are copied through.
type bufferPool struct{ pool sync.Pool }

const bufferSize = 32 << 10

func (b *bufferPool) Get() []byte {
	if buf, ok := b.pool.Get().(*[bufferSize]byte); ok {
		return buf[:]
	}
	return make([]byte, bufferSize)
}

func (b *bufferPool) Put(buf []byte) { b.pool.Put((*[bufferSize]byte)(buf)) }
