// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// Session is what vmctld is told of a login session.
type Session struct {
	ID        string    `json:"-"`
	Principal string    `json:"principal"`
	Groups    []string  `json:"groups,omitempty"`
	ExpiresAt time.Time `json:"expiresAt"`
	Address   string    `json:"address"`
}

// PutSession registers a login session, also when it is registered already.
// Errors: ErrAway, ErrRefused, ErrEnded.
func (c *Client) PutSession(ctx context.Context, s Session) error {
	body, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("register session: %w", err)
	}
	res, err := c.Do(ctx, http.MethodPut, "/v1/sessions/"+s.ID, body, Caller{ID: service}, "")
	if err != nil {
		return err
	}
	switch {
	case res.Status < 300:
		return nil
	case res.Status == http.StatusConflict || res.Status == http.StatusGone || res.Status == http.StatusNotFound:
		return ErrEnded
	}
	return fmt.Errorf("register session: %w: status %d", ErrAway, res.Status)
}

// EndSession ends a login session, its streams and its consoles. A session
// that vmctld does not know has ended. Errors: ErrAway, ErrRefused.
func (c *Client) EndSession(ctx context.Context, id string) error {
	res, err := c.Do(ctx, http.MethodDelete, "/v1/sessions/"+id, nil, Caller{ID: service}, "")
	if err != nil {
		return err
	}
	if res.Status < 300 || res.Status == http.StatusNotFound || res.Status == http.StatusGone {
		return nil
	}
	return fmt.Errorf("end session: %w: status %d", ErrAway, res.Status)
}
