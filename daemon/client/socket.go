// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"github.com/coder/websocket"

	"vmctl/daemon/api"
)

var errNoConsole = errors.New("what answers is no console of vmctl")

// DialConsole opens the console that a token is for, through vmhttp. What is
// spoken on it, and how long its messages may be, is the caller's to know, who
// also closes it. The context bounds the opening alone.
func (c *Client) DialConsole(ctx context.Context, vm, token, subprotocol string) (*websocket.Conn, error) {
	if !c.remote {
		return nil, errNoServer
	}
	if !api.ValidIdent(vm) {
		_, err := vmPath(vm, "")
		return nil, err
	}
	path := "/console/" + vm
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, errTimeout)
	defer cancel()
	header := http.Header{"Origin": {c.base}}
	c.identify(header)
	conn, res, err := websocket.Dial(ctx, c.base+path+"?token="+url.QueryEscape(token), &websocket.DialOptions{
		HTTPClient:   c.http,
		HTTPHeader:   header,
		Subprotocols: []string{subprotocol},
	})
	if err != nil {
		if res != nil && res.StatusCode != http.StatusSwitchingProtocols && res.Body != nil {
			return nil, problem(res)
		}
		return nil, c.lost(ctx, call{method: http.MethodGet, path: path}, err)
	}
	if conn.Subprotocol() != subprotocol {
		_ = conn.CloseNow() // nothing was said on it yet
		return nil, errNoConsole
	}
	return conn, nil
}
