// SPDX-License-Identifier: Apache-2.0

// Package upstream is the way from the front door to vmctld: requests on the
// unix socket front.sock, each signed with the identity that it is made for.
package upstream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"vmctl/frontdoor/sign"
)

// Service is the identity of the front door itself.
var service = sign.Identity{User: "service:vmhttp"}

const (
	dialTimeout   = 5 * time.Second
	headerTimeout = 2 * time.Minute // more than the longest ?wait=
	callTimeout   = 10 * time.Second
	maxAnswer     = 1 << 20 // bytes of an answer that we read ourselves
	maxProblem    = 64 << 10
)

// Errors to be told apart with errors.Is.
var (
	// ErrAway: vmctld cannot be reached, or went away before it answered.
	ErrAway = errors.New("vmctld is not there")
	// ErrRefused: vmctld does not accept what this process signs.
	ErrRefused = errors.New("vmctld refused the signature")
	// ErrEnded: vmctld knows that the login session has ended.
	ErrEnded = errors.New("session has ended")
)

// Client sends signed requests. It may be used concurrently.
type Client struct {
	signer    *sign.Signer
	transport *http.Transport
}

// New returns a client of the socket at path.
func New(path string, signer *sign.Signer) *Client {
	dialer := net.Dialer{Timeout: dialTimeout}
	return &Client{signer: signer, transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		},
		DisableCompression:     true, // bytes pass through as they are
		MaxIdleConnsPerHost:    32,
		IdleConnTimeout:        time.Minute,
		ResponseHeaderTimeout:  headerTimeout,
		MaxResponseHeaderBytes: 64 << 10,
	}}
}

// Close ends the idle connections.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Caller is for whom a request is made. Join registers the caller's session
// anew; it is called when vmctld does not know it (after a restart).
type Caller struct {
	ID   sign.Identity
	Join func(context.Context) error
}

// As returns a RoundTripper that sends a request with the given body, which
// must be all of it, as caller. Requests go to the host "vmctld". It tries
// once more after vmctld has forgotten the session, and, if the request
// changes nothing, after vmctld has restarted.
func (c *Client) As(who Caller, body []byte) http.RoundTripper { return &call{c, who, body} }

type call struct {
	c    *Client
	who  Caller
	body []byte
}

func (l *call) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := l.send(r)
	if err != nil || res.StatusCode != http.StatusUnauthorized {
		return res, err
	}
	code, err := refusal(res)
	if err != nil {
		return nil, err
	}
	switch code {
	case "sessionUnknown":
		if l.who.Join == nil {
			return nil, ErrEnded
		}
		if err := l.who.Join(r.Context()); err != nil {
			return nil, err
		}
	case "signatureStale", "signatureReplayed":
		// Seen when net/http sent it twice because a kept connection broke.
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			return nil, fmt.Errorf("%w: %s", ErrAway, code)
		}
	case "signatureMissing", "signatureInvalid":
		return nil, fmt.Errorf("%w: %s", ErrRefused, code)
	default:
		return res, nil
	}
	return l.again(r)
}

// again is the second and last attempt: now a 401 about our signature or our
// session is no business of the browser's.
func (l *call) again(r *http.Request) (*http.Response, error) {
	res, err := l.send(r)
	if err != nil || res.StatusCode != http.StatusUnauthorized {
		return res, err
	}
	code, err := refusal(res)
	switch {
	case err != nil:
		return nil, err
	case code == "sessionUnknown":
		return nil, ErrEnded
	case len(code) > 9 && code[:9] == "signature":
		return nil, fmt.Errorf("%w: %s", ErrRefused, code)
	}
	return res, nil
}

func (l *call) send(r *http.Request) (*http.Response, error) {
	out := r.Clone(r.Context())
	out.URL.Scheme, out.URL.Host, out.Host = "http", "vmctld", "vmctld"
	out.GetBody, out.Trailer, out.TransferEncoding = nil, nil, nil
	out.ContentLength, out.Body = int64(len(l.body)), http.NoBody
	if len(l.body) > 0 {
		out.Body = io.NopCloser(bytes.NewReader(l.body))
	}
	if err := l.c.signer.Sign(out, l.body, l.who.ID); err != nil {
		return nil, fmt.Errorf("sign %s: %w", r.Method, err)
	}
	res, err := l.c.transport.RoundTrip(out)
	if err != nil && r.Context().Err() == nil {
		err = fmt.Errorf("%w: %w", ErrAway, err)
	}
	return res, err
}

// refusal reads the code of a 401 and leaves its body readable.
func refusal(res *http.Response) (string, error) {
	body, err := io.ReadAll(io.LimitReader(res.Body, maxProblem))
	res.Body.Close()
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrAway, err)
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	var p struct{ Code string }
	if json.Unmarshal(body, &p) != nil {
		return "", nil // not a problem document: passed on as it is
	}
	return p.Code, nil
}

// Answer is a whole answer, of at most 1 MiB.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Do sends a request and reads its answer within 10 s.
func (c *Client) Do(ctx context.Context, method, path string, body []byte, who Caller, requestID string) (*Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "http://vmctld"+path, nil)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	r.Header.Set("User-Agent", "vmhttp")
	if requestID != "" {
		r.Header.Set("X-Request-Id", requestID)
	}
	if len(body) > 0 {
		r.Header.Set("Content-Type", "application/json")
	}
	res, err := c.As(who, body).RoundTrip(r)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w: %w", ErrAway, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %w", method, path, ErrAway, err)
	}
	return &Answer{res.StatusCode, res.Header, text}, nil
}
