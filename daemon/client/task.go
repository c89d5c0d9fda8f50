// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"time"

	"vmctl/daemon/api"
)

const (
	pollWait = 30 * time.Second       // that one poll asks the server to wait
	pollPace = 250 * time.Millisecond // between polls, should the server not wait
)

// TaskFilter says which tasks to list; empty fields let all through.
type TaskFilter struct {
	VM    string // name or uuid
	State api.TaskState
}

// Task returns one task, or ErrNotFound.
func (c *Client) Task(ctx context.Context, id string) (*api.Task, error) {
	return c.task(ctx, id, 0)
}

// WaitTask waits until a task has ended, however it ended, or ctx is done.
// It outlives restarts of the daemon of a few seconds.
func (c *Client) WaitTask(ctx context.Context, id string) (*api.Task, error) {
	for {
		asked := time.Now()
		task, err := c.task(ctx, id, pollWait)
		if err != nil {
			return nil, err
		}
		if task.Ended() {
			return task, nil
		}
		if err := pause(ctx, pollPace-min(pollPace, time.Since(asked))); err != nil {
			return nil, err
		}
	}
}

func (c *Client) task(ctx context.Context, id string, wait time.Duration) (*api.Task, error) {
	if !plain(id) {
		return nil, &Error{Code: api.CodeInvalidRequest, Detail: fmt.Sprintf("%q is not the id of a task", id)}
	}
	what := call{method: http.MethodGet, path: "/v1/tasks/" + id, query: url.Values{}, wait: wait}
	if wait > 0 {
		what.query.Set("wait", fmt.Sprintf("%ds", int(wait.Seconds())))
	}
	out := new(api.Task)
	if err := c.do(ctx, what, out); err != nil {
		return nil, err
	}
	return out, nil
}

// Tasks walks the tasks of a filter, newest first. An error ends the walk.
func (c *Client) Tasks(ctx context.Context, filter TaskFilter) iter.Seq2[api.Task, error] {
	return pages(ctx, func(ctx context.Context, cursor string) ([]api.Task, string, error) {
		q := url.Values{}
		set(q, "vm", filter.VM)
		set(q, "state", string(filter.State))
		set(q, "cursor", cursor)
		var page api.TaskList
		if err := c.do(ctx, call{method: http.MethodGet, path: "/v1/tasks", query: q}, &page); err != nil {
			return nil, "", err
		}
		return page.Items, page.NextCursor, nil
	})
}

// plain reports whether s can be a segment of a path as it is.
func plain(s string) bool {
	for _, r := range s {
		if (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '-' {
			return false
		}
	}
	return s != "" && len(s) <= 64
}
