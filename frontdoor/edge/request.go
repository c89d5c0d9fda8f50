// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"crypto/rand"
	"log/slog"
	"net/http"
	"regexp"
	"time"

	"vmctl/frontdoor/login"
	"vmctl/frontdoor/problem"
)

const (
	bodyTimeout  = 30 * time.Second // for all of a body to arrive
	writeTimeout = 30 * time.Second // for a client to take one piece
	maxLogPath   = 256
)

var requestID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// Wrap puts around next what every request gets: an id, headers, deadlines,
// the check of its origin, and a line in the log.
func Wrap(next http.Handler, origins *Origins, log *slog.Logger, now func() time.Time) http.Handler {
	inner := origins.Protect(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := now()
		id := r.Header.Get(problem.HeaderRequestID)
		if !requestID.MatchString(id) {
			id = rand.Text()
		}
		w.Header().Set(problem.HeaderRequestID, id)
		setHeaders(w.Header())
		rec := &recorder{ResponseWriter: w, rc: http.NewResponseController(w), perWrite: r.ProtoMajor >= 2}
		defer func() { logLine(log, r, rec, id, now().Sub(start)) }()
		defer rec.arm() // for what the server itself flushes after us
		if !rec.perWrite {
			rec.arm() // else the last request's deadline would hold for "100 Continue"
		}
		if r.ContentLength != 0 {
			_ = rec.rc.SetReadDeadline(time.Now().Add(bodyTimeout)) // no deadlines: only in tests
		}
		inner.ServeHTTP(rec, r)
	})
}

// logLine leaves out the query, where a console's token is, and all headers.
func logLine(log *slog.Logger, r *http.Request, rec *recorder, id string, took time.Duration) {
	path := r.URL.EscapedPath()
	if len(path) > maxLogPath {
		path = path[:maxLogPath]
	}
	log.Info("request", "method", r.Method, "path", path, "status", rec.status, "bytes", rec.bytes,
		"ms", took.Milliseconds(), "address", login.Address(r), "request", id)
}

// BodyRead lifts the deadline of the body, once it has been read: a request
// may then wait or stream as long as it likes.
func BodyRead(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // no deadlines: only in tests
}

// recorder notes what was answered, and gives each write a deadline of its
// own, so that a stream may last but a reader may not stall.
type recorder struct {
	http.ResponseWriter
	rc *http.ResponseController
	// perWrite: the deadline is lifted after each write. In HTTP/2 it ends a
	// stream also while nothing is written.
	perWrite bool
	status   int
	bytes    int64
}

// Unwrap is for http.ResponseController, and with it for WebSockets.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *recorder) WriteHeader(status int) {
	if w.status < 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	w.arm()
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	w.disarm()
	return n, err
}

// FlushError is what http.ResponseController calls.
func (w *recorder) FlushError() error {
	w.arm()
	defer w.disarm()
	return w.rc.Flush()
}

func (w *recorder) arm() {
	_ = w.rc.SetWriteDeadline(time.Now().Add(writeTimeout)) // no deadlines: only in tests
}

func (w *recorder) disarm() {
	if w.perWrite {
		_ = w.rc.SetWriteDeadline(time.Time{})
	}
}
