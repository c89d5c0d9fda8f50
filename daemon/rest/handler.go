// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"

	"vmctl/daemon/api"
	"vmctl/daemon/auth"
	"vmctl/daemon/task"
)

// Audit keeps what was refused.
type Audit interface {
	// Denied writes the audit row of the request in ctx, unless it has one, and
	// with event not nil the journal's auth.refused.
	Denied(ctx context.Context, outcome api.Code, event *api.RefusedData) error
}

// Handler answers requests of callers that id identifies. Whatever comes, the
// order is: request id, body within its limit, who, idempotency, route; and at
// the end a row in the audit log for each write and each denial.
func (s *Server) Handler(id Identify) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := s.Now()
		r = withRequest(r)
		w.Header().Set("X-Request-Id", requestID(r.Context()))
		w.Header().Set("X-Content-Type-Options", "nosniff")
		rec := &recorder{ResponseWriter: w}
		if err := http.NewResponseController(w).SetWriteDeadline(began.Add(answerTimeout)); err != nil {
			s.refuse(rec, r, err)
			return
		}
		route := s.answer(rec, r, id)
		s.Observe(r.Method, route, rec.status, s.Now().Sub(began))
	})
}

// answer returns the pattern of the route.
func (s *Server) answer(w *recorder, r *http.Request, id Identify) string {
	body, err := readBody(r)
	if err != nil {
		s.refuse(w, r, err)
		return ""
	}
	caller, err := s.identify(r, body, id)
	if err != nil {
		s.refuse(w, r, err)
		return ""
	}
	origin := &task.Origin{Actor: string(caller.Principal), Session: caller.Session, Address: caller.Address,
		RequestID: requestID(r.Context()), Method: r.Method, Path: clip(r.URL.Path)}
	rctx := chi.NewRouteContext()
	ctx := context.WithValue(auth.WithCaller(task.WithOrigin(r.Context(), origin), caller), chi.RouteCtxKey, rctx)
	r = rebind(r, ctx)
	r.Body = io.NopCloser(bytes.NewReader(body))
	s.once(w, r, body, origin)
	s.finish(r, origin)
	return rctx.RoutePattern()
}

// finish writes the audit row of what changed nothing: a write that was
// refused, or anything that was denied.
func (s *Server) finish(r *http.Request, origin *task.Origin) {
	code := stateOf(r.Context()).code
	reads := r.Method == http.MethodGet || r.Method == http.MethodHead
	if reads && !stateOf(r.Context()).denied {
		return
	}
	if code == "" {
		code = "done"
	}
	if err := s.Audit.Denied(context.WithoutCancel(r.Context()), code, nil); err != nil {
		s.log.Error("audit row not written", "op", r.Method+" "+origin.Path, "requestId", origin.RequestID, "err", err)
	}
}

// identify asks who calls. A refusal is an audit row and an event: whoever can
// reach the socket should know better.
func (s *Server) identify(r *http.Request, body []byte, id Identify) (*auth.Caller, error) {
	c := r.Context().Value(credKey{}).(*conn)
	if c.err != nil {
		return nil, &api.Error{Code: api.CodeUnauthenticated, Detail: "nothing is known of the caller", Err: c.err}
	}
	caller, err := id(r, body, c.cred)
	if err == nil {
		return caller, nil
	}
	code := api.CodeInternal
	var e *api.Error
	if errors.As(err, &e) {
		code = e.Code
	}
	s.log.Warn("caller refused", "op", r.Method+" "+clip(r.URL.Path), "requestId", requestID(r.Context()), "uid", c.cred.UID, "pid", c.cred.PID, "err", err)
	origin := &task.Origin{Actor: string(auth.UnixUser(c.cred.UID)), RequestID: requestID(r.Context()), Method: clip(r.Method), Path: clip(r.URL.Path)}
	aerr := s.Audit.Denied(task.WithOrigin(context.WithoutCancel(r.Context()), origin), code,
		&api.RefusedData{Code: code, Method: clip(r.Method), Path: clip(r.URL.Path), PeerUID: int64(c.cred.UID)})
	return nil, errors.Join(err, aerr)
}

// readBody reads all of a body, which is small: what is signed is checked as a
// whole, and what is idempotent is hashed.
func readBody(r *http.Request) ([]byte, error) {
	tooLarge := &api.Error{Code: api.CodeTooLarge, Detail: "the body is larger than 1 MiB"}
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return nil, &api.Error{Code: api.CodeInvalidRequest, Detail: "the body ended too soon", Err: err}
	}
	if len(body) > maxBody {
		// A client that still writes would not read the answer; one that sends
		// far more than is allowed is cut off.
		_, _ = io.CopyN(io.Discard, r.Body, maxDrain)
		return nil, tooLarge
	}
	return body, nil
}

// Denied is what auth.NewAuthorizer is to call: the request in ctx gets its
// audit row at its end.
func Denied(ctx context.Context, _ *auth.Caller, _ auth.Action, _ string, _ api.Code) {
	if st := stateOf(ctx); st != nil {
		st.denied = true
	}
}

// recorder sees the status, and keeps a problem for who asks again with the
// same key.
type recorder struct {
	http.ResponseWriter
	status  int
	problem bytes.Buffer
}

const maxKept = 16 << 10 // bytes of a problem

// Unwrap lets http.ResponseController reach deadlines and flush.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader takes the first status.
func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write writes to the caller.
func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	if w.status >= http.StatusBadRequest && w.problem.Len()+len(b) <= maxKept {
		w.problem.Write(b)
	}
	return w.ResponseWriter.Write(b)
}

// isConsoleToken: the one POST whose answer is a secret and is never kept.
func isConsoleToken(path string) bool { return strings.HasSuffix(path, ":consoleToken") }

// Watch ends what waits, streams of events and long polls, when ctx ends.
func (s *Server) Watch(ctx context.Context) {
	<-ctx.Done()
	s.stop()
}
