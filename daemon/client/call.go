// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	cryptorand "crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"vmctl/daemon/api"
)

const (
	maxBody     = 16 << 20 // bytes of an answer
	maxAttempts = 8        // of one call
	maxBackoff  = 2 * time.Second
)

var (
	errTimeout = errors.New("the server did not answer in time")
	errBody    = errors.New("the answer is larger than 16 MiB")
)

// call is one call of the API; it may take several attempts.
type call struct {
	method string
	path   string // from /v1 on, or from /auth on
	query  url.Values
	body   any           // encoded as JSON unless nil
	match  int64         // generation that the object must have; 0: any
	wait   time.Duration // that the server was asked to wait
}

// do sends a call until it is answered, and decodes the answer into out
// unless that is nil.
//
// An attempt is repeated when its connection broke after the request may have
// been sent. That is safe: a GET changes nothing and a POST carries the same
// Idempotency-Key each time. A DELETE and a PATCH have no key and are sent once: the
// second attempt could meet another VM that took over the name, or what the first made.
func (c *Client) do(ctx context.Context, what call, out any) error {
	body, err := encode(what)
	if err != nil {
		return err
	}
	key := ""
	if what.method == http.MethodPost {
		key = cryptorand.Text()
	}
	for attempt := 1; ; attempt++ {
		after, err := c.attempt(ctx, what, body, key, out)
		if err == nil {
			return nil
		}
		if attempt == maxAttempts || what.method == http.MethodDelete || what.method == http.MethodPatch || !again(err, attempt, after) {
			return err
		}
		if err := pause(ctx, max(after, c.delay(attempt))); err != nil {
			return err
		}
	}
}

func encode(what call) ([]byte, error) {
	if what.body == nil {
		return nil, nil
	}
	body, err := json.Marshal(what.body)
	if err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", what.method, what.path, err)
	}
	return body, nil
}

// attempt sends a call once. after is what the server asks to wait before
// the next attempt, 0 if it does not ask for one.
func (c *Client) attempt(ctx context.Context, what call, body []byte, key string, out any) (after time.Duration, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout+what.wait, errTimeout)
	defer cancel()
	req, err := c.request(ctx, what, body, key)
	if err != nil {
		return 0, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return 0, c.lost(ctx, what, err)
	}
	defer res.Body.Close()
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return retryAfter(res.Header), problem(res)
	}
	if err := decode(res, out); err != nil {
		return 0, c.lost(ctx, what, err)
	}
	return 0, nil
}

func (c *Client) request(ctx context.Context, what call, body []byte, key string) (*http.Request, error) {
	address := c.url(what.path)
	if len(what.query) > 0 {
		address += "?" + what.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, what.method, address, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", what.method, what.path, err)
	}
	req.Header.Set("Accept", "application/json, application/problem+json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if what.match != 0 {
		req.Header.Set("If-Match", strconv.Quote(strconv.FormatInt(what.match, 10)))
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	c.identify(req.Header)
	return req, nil
}

// url puts the host before a path; what is vmctld's lies below /api at vmhttp.
func (c *Client) url(path string) string {
	if len(path) > 3 && path[:3] == "/v1" || path == "/v1" {
		return c.base + c.prefix + path
	}
	return c.base + path
}

func (c *Client) identify(h http.Header) {
	h.Set("User-Agent", c.userAgent)
	if c.session != "" {
		h.Set("Cookie", cookieName+"="+c.session)
	}
}

// lost names the call in an error of the transport, and tells our own time
// limit from the caller's.
func (c *Client) lost(ctx context.Context, what call, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	} else if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err
	}
	return &transportError{method: what.method, path: what.path, err: err}
}

// transportError is a call without an answer that could be read.
type transportError struct {
	method, path string
	err          error
}

func (e *transportError) Error() string { return e.method + " " + e.path + ": " + e.err.Error() }
func (e *transportError) Unwrap() error { return e.err }

// again reports whether a failed attempt is worth another.
func again(err error, attempt int, after time.Duration) bool {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e.Code == api.CodeIdempotencyInFlight || e.Code == api.CodeUnavailable && after > 0
	}
	return broken(err) && (attempt > 1 || !unreachable(err))
}

// broken reports whether err is of a connection that was lost, as opposed to
// one that is wrong or that the caller gave up.
func broken(err error) bool {
	var (
		transport *transportError
		pin       *PinError
		cert      *tls.CertificateVerificationError
		alert     tls.AlertError
	)
	switch {
	case !errors.As(err, &transport),
		errors.As(err, &pin), errors.As(err, &cert), errors.As(err, &alert),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, errTimeout), errors.Is(err, errBody):
		return false
	}
	var net net.Error
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &net)
}

// unreachable reports whether no connection was made at all.
func unreachable(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// Unreachable reports whether err says that nothing listens at the socket or
// the server.
func Unreachable(err error) bool { return unreachable(err) }

// delay doubles with each attempt; the random half keeps callers apart.
func (c *Client) delay(attempt int) time.Duration {
	return jitter(min(c.backoff<<(attempt-1), maxBackoff))
}

func jitter(d time.Duration) time.Duration {
	return d/2 + mathrand.N(d/2+1)
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// retryAfter reads the header as seconds, at most ten of them.
func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || seconds <= 0 {
		return 0
	}
	return time.Duration(min(seconds, 10)) * time.Second
}

// decode reads a bounded body. Fields it does not know are skipped: v1 grows.
func decode(res *http.Response, out any) error {
	body, err := io.ReadAll(io.LimitReader(res.Body, maxBody+1))
	switch {
	case err != nil:
		return err
	case len(body) > maxBody:
		return errBody
	case out == nil:
		return nil
	case !isJSON(res.Header):
		return fmt.Errorf("what answers is not vmctl: %q instead of JSON", res.Header.Get("Content-Type"))
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("decode the answer: %s", err)
	}
	return nil
}
