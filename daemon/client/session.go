// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"net/http"
	"time"
)

var (
	errNoServer = errors.New("only a server has logins: the socket knows its callers by their uid")
	errNoCookie = errors.New("the server accepted the login but gave no session")
)

// Session is a login at vmhttp.
type Session struct {
	User      string    `json:"user"`
	Groups    []string  `json:"groups"`
	ExpiresAt time.Time `json:"expiresAt"`
}

type credentials struct {
	User     string `json:"user"`
	Password string `json:"password"`
}

// Login makes a session and returns its secret, for Config.Session. It is
// sent once: a login that may have been counted is not tried again.
func (c *Client) Login(ctx context.Context, user, password string) (secret string, err error) {
	if !c.remote {
		return "", errNoServer
	}
	res, err := c.once(ctx, call{method: http.MethodPost, path: "/auth/v1/login", body: credentials{user, password}})
	if err != nil {
		return "", err
	}
	for _, cookie := range res.Cookies() {
		if cookie.Name == cookieName && cookie.Value != "" {
			return cookie.Value, nil
		}
	}
	return "", errNoCookie
}

// Logout ends the session at the server.
func (c *Client) Logout(ctx context.Context) error {
	if !c.remote {
		return errNoServer
	}
	_, err := c.once(ctx, call{method: http.MethodPost, path: "/auth/v1/logout"})
	return err
}

// Session returns whose session this is, or ErrUnauthenticated.
func (c *Client) Session(ctx context.Context) (*Session, error) {
	if !c.remote {
		return nil, errNoServer
	}
	out := new(Session)
	if err := c.do(ctx, call{method: http.MethodGet, path: "/auth/v1/session"}, out); err != nil {
		return nil, err
	}
	return out, nil
}

// once sends a call of vmhttp's own that has no answer but its header.
func (c *Client) once(ctx context.Context, what call) (*http.Response, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, errTimeout)
	defer cancel()
	body, err := encode(what)
	if err != nil {
		return nil, err
	}
	req, err := c.request(ctx, what, body, "")
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.lost(ctx, what, err)
	}
	defer res.Body.Close()
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return nil, problem(res)
	}
	return res, nil
}
