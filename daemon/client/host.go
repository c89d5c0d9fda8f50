// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"net/http"

	"vmctl/daemon/api"
)

// Host returns the machine that vmctld runs on.
func (c *Client) Host(ctx context.Context) (*api.Host, error) {
	out := new(api.Host)
	if err := c.do(ctx, call{method: http.MethodGet, path: "/v1/host"}, out); err != nil {
		return nil, err
	}
	return out, nil
}

// Root returns the names of what the server can do.
func (c *Client) Root(ctx context.Context) (*api.Root, error) {
	out := new(api.Root)
	if err := c.do(ctx, call{method: http.MethodGet, path: "/v1"}, out); err != nil {
		return nil, err
	}
	return out, nil
}

// WhoAmI returns who the server takes the caller for.
func (c *Client) WhoAmI(ctx context.Context) (*api.WhoAmI, error) {
	out := new(api.WhoAmI)
	if err := c.do(ctx, call{method: http.MethodGet, path: "/v1/whoami"}, out); err != nil {
		return nil, err
	}
	return out, nil
}
