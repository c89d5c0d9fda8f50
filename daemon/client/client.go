// SPDX-License-Identifier: Apache-2.0

// Package client calls vmctld's REST interface: on its unix socket, or from
// elsewhere through vmhttp.
//
// A call ends with the types of package api or with an error that is one of
//   - *Error: the server answered with a problem; errors.Is compares its code
//     with sentinels such as ErrNotFound,
//   - *PinError: the server showed another certificate than the pinned one,
//   - a transport error, which keeps its cause.
//
// Every POST carries an Idempotency-Key, so a call whose answer was lost is
// sent again without doing a thing twice. All sizes and times are bounded.
package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// DefaultSocket is where vmctld listens for local callers.
const DefaultSocket = "/run/vmctl/api.sock"

const (
	dialTimeout    = 10 * time.Second
	defaultTimeout = 30 * time.Second
	cookieName     = "__Host-vmctl"
)

// Config says where the server is and who asks. Exactly one of Socket and
// Server is set.
type Config struct {
	Socket      string        // path of api.sock
	Server      string        // https://host[:port] of vmhttp
	Fingerprint string        // pinned SHA-256 of the server's certificate; empty: the system's authorities decide
	Session     string        // login session from Login; empty for the socket
	UserAgent   string        // empty: vmctl
	Timeout     time.Duration // of one attempt of a call, without what it asks the server to wait; 0: 30 s
}

// Client is safe for use by many goroutines.
type Client struct {
	http      *http.Client
	base      string // scheme and host
	prefix    string // before /v1
	remote    bool
	session   string
	userAgent string
	timeout   time.Duration
	backoff   time.Duration // first wait before a call is sent again
	idle      time.Duration // an event stream silent for so long is dead
}

// New returns a client. It does not connect.
func New(cfg Config) (*Client, error) {
	c := &Client{
		session: cfg.Session, userAgent: cfg.UserAgent, timeout: cfg.Timeout,
		backoff: 100 * time.Millisecond, idle: 45 * time.Second,
	}
	if c.userAgent == "" {
		c.userAgent = "vmctl"
	}
	if c.timeout <= 0 {
		c.timeout = defaultTimeout
	}
	var transport *http.Transport
	switch {
	case cfg.Socket != "" && cfg.Server != "":
		return nil, errors.New("both a socket and a server are given")
	case cfg.Socket != "":
		transport = unixTransport(cfg.Socket)
		c.base = "http://vmctld"
	default:
		base, err := ParseServer(cfg.Server)
		if err != nil {
			return nil, err
		}
		if transport, err = tlsTransport(cfg.Fingerprint); err != nil {
			return nil, err
		}
		c.base, c.prefix, c.remote = base, "/api", true
	}
	c.http = &http.Client{
		Transport: transport,
		// An API that redirects is none of ours, and the session must not follow it.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// Close drops idle connections. Calls under way go on.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Remote reports whether the client talks to vmhttp.
func (c *Client) Remote() bool { return c.remote }

// Origin returns scheme and host of the server, as in https://host:8443.
func (c *Client) Origin() string { return c.base }

func unixTransport(path string) *http.Transport {
	dialer := &net.Dialer{Timeout: dialTimeout}
	return &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		},
		MaxIdleConns:    4,
		IdleConnTimeout: time.Minute,
	}
}

// tlsTransport speaks HTTP/1.1 alone: consoles upgrade their connection.
func tlsTransport(fingerprint string) (*http.Transport, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if fingerprint != "" {
		pin, err := ParseFingerprint(fingerprint)
		if err != nil {
			return nil, err
		}
		pin.apply(cfg)
	}
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSClientConfig:     cfg,
		TLSHandshakeTimeout: dialTimeout,
		MaxIdleConns:        4,
		IdleConnTimeout:     time.Minute,
	}, nil
}

// ParseServer brings the address of a vmhttp into its one form, https://host
// or https://host:port in lower case, without the port 443.
func ParseServer(server string) (string, error) {
	u, err := url.Parse(server)
	switch {
	case err != nil:
		return "", fmt.Errorf("server %q: not a URL", server)
	case u.Scheme != "https":
		return "", fmt.Errorf("server %q: must begin with https://", server)
	case u.Hostname() == "":
		return "", fmt.Errorf("server %q: names no host", server)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return "", fmt.Errorf("server %q: must be https://host:port and nothing more", server)
	}
	host := strings.ToLower(u.Host)
	return "https://" + strings.TrimSuffix(strings.TrimSuffix(host, ":443"), ":"), nil
}
