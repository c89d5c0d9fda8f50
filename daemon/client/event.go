// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strconv"
	"time"

	"vmctl/daemon/api"
)

const (
	maxReconnect = 15 * time.Second // between attempts to take up a stream
	caughtUp     = "caught up"
)

// ErrReset matches a *ResetError.
var ErrReset = errors.New("events are missing")

var (
	errIdle    = errors.New("the event stream fell silent")
	errEnded   = errors.New("the server ended the event stream")
	errEvent   = errors.New("the event stream holds what is no event")
	errStopped = errors.New("the reader stopped")
)

// ResetError says that the journal no longer reaches back to the last event
// that was read. What the events would have told must be listed again.
type ResetError struct {
	Reason string
	Seq    int64 // the stream goes on after this number
}

func (e *ResetError) Error() string {
	return fmt.Sprintf("events are missing up to number %d: %s", e.Seq, e.Reason)
}

// Is reports whether target is ErrReset.
func (e *ResetError) Is(target error) bool { return target == ErrReset }

// EventOptions says which events to read.
type EventOptions struct {
	// Since is the number after which to begin. A list's EventSeq fits what
	// the list shows.
	Since int64
	// Until, unless 0, ends the stream with this number, or as soon as the
	// server shows that up to now the caller may see no more: by the comment
	// "caught up", or by the first heartbeat.
	Until int64
	// Lost is called before each attempt to take up a stream that was lost.
	// It may be nil.
	Lost func(err error, wait time.Duration)
}

// Events reads events in order, each once. A lost connection is taken up
// again where it ended, with growing pauses and for as long as it takes.
//
// A *ResetError is yielded and the stream goes on after it. Any other error
// is yielded last: a first connection that could not be made, or a refusal.
// The stream ends without an error when ctx is done.
func (c *Client) Events(ctx context.Context, opt EventOptions) iter.Seq2[api.Event, error] {
	return func(yield func(api.Event, error) bool) {
		s := &eventStream{c: c, opt: opt, last: opt.Since, yield: yield}
		if err := s.run(ctx); err != nil && ctx.Err() == nil {
			yield(api.Event{}, err)
		}
	}
}

type eventStream struct {
	c         *Client
	opt       EventOptions
	yield     func(api.Event, error) bool
	last      int64 // number of the last event read
	connected bool  // once at least
	comments  int   // of this connection; the first greets, others are heartbeats
	failures  int   // attempts since the last sign of life
}

// run reads one connection after the other; nil means the reader has all.
func (s *eventStream) run(ctx context.Context) error {
	for s.opt.Until == 0 || s.last < s.opt.Until {
		err := s.connection(ctx)
		switch {
		case err == nil, errors.Is(err, errStopped), ctx.Err() != nil:
			return nil
		case s.final(err):
			return err
		}
		s.failures++
		wait := jitter(min(s.c.backoff<<min(s.failures, 10), maxReconnect))
		if s.opt.Lost != nil {
			s.opt.Lost(err, wait)
		}
		if err := pause(ctx, wait); err != nil {
			return nil
		}
	}
	return nil
}

// final reports whether another attempt would end the same way.
func (s *eventStream) final(err error) bool {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e.Status < 500 && e.Status != http.StatusTooManyRequests
	}
	if errors.Is(err, errIdle) || errors.Is(err, errEnded) || errors.Is(err, errTimeout) {
		return false
	}
	return !broken(err) || !s.connected && unreachable(err)
}

// connection reads from one connection until it ends; nil means Until was
// reached.
func (s *eventStream) connection(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	what := call{method: http.MethodGet, path: "/v1/events"}
	req, err := s.c.request(ctx, what, nil, "")
	if err != nil {
		return err
	}
	from := strconv.FormatInt(s.last, 10)
	req.URL.RawQuery = "since=" + from
	req.Header.Set("Last-Event-ID", from)
	req.Header.Set("Accept", "text/event-stream, application/problem+json")

	watch := time.AfterFunc(s.c.idle, func() { cancel(errIdle) })
	defer watch.Stop()
	res, err := s.c.http.Do(req)
	if err != nil {
		return s.c.lost(ctx, what, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return problem(res)
	}
	s.connected, s.comments = true, 0
	in := newMessages(res.Body)
	for {
		msg, err := in.next()
		if errors.Is(err, io.EOF) && context.Cause(ctx) == nil {
			return errEnded
		}
		if err != nil {
			return s.c.lost(ctx, what, err)
		}
		watch.Reset(s.c.idle)
		if done, err := s.take(msg); done || err != nil {
			return err
		}
	}
}

// take handles one message; done means Until was reached.
func (s *eventStream) take(msg message) (done bool, err error) {
	switch {
	case msg.isComment:
		if s.comments++; s.comments > 1 {
			s.failures = 0
		}
		return s.opt.Until > 0 && (msg.comment == caughtUp || s.comments > 1), nil
	case msg.event == "reset":
		return s.reset(msg)
	case msg.event == "dropped":
		var end api.StreamEnd
		if json.Unmarshal(msg.data, &end) != nil {
			return false, errEvent
		}
		return false, fmt.Errorf("%w: %s", errEnded, end.Reason)
	case len(msg.data) == 0:
		return false, nil
	}
	var event api.Event
	if json.Unmarshal(msg.data, &event) != nil || event.Seq <= 0 {
		return false, errEvent
	}
	if event.Seq <= s.last { // read before the connection was lost
		return false, nil
	}
	if s.opt.Until > 0 && event.Seq > s.opt.Until {
		return true, nil
	}
	s.last, s.failures = event.Seq, 0
	if !s.yield(event, nil) {
		return false, errStopped
	}
	return s.opt.Until > 0 && s.last >= s.opt.Until, nil
}

func (s *eventStream) reset(msg message) (done bool, err error) {
	var end api.StreamEnd
	if json.Unmarshal(msg.data, &end) != nil || end.Seq < 0 {
		return false, errEvent
	}
	s.last = end.Seq
	if !s.yield(api.Event{}, &ResetError{Reason: end.Reason, Seq: end.Seq}) {
		return false, errStopped
	}
	return s.opt.Until > 0 && s.last >= s.opt.Until, nil
}
