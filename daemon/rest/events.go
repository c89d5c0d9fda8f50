// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"vmctl/daemon/api"
	"vmctl/daemon/auth"
	"vmctl/daemon/event"
)

const (
	heartbeat    = 15 * time.Second
	writeTimeout = 10 * time.Second // of one batch to one reader
	maxStreams   = 4096             // readers at the same time
)

// Journal is the record of events.
type Journal interface {
	// Subscribe returns a reader of all events after since; see event.Reader.
	Subscribe(ctx context.Context, since int64) (*event.Reader, error)
	// Last returns the number of the last event.
	Last() int64
}

func (s *Server) registerEvents() {
	op := s.op("watchEvents", http.MethodGet, "/v1/events", "Watch the journal as server-sent events: id is seq, event is kind, data is an Event")
	op.Description = "Starts after Last-Event-ID or since, or with the next event. `event: reset` says that the " +
		"journal does not reach back that far: list again, then watch from its seq. `event: dropped` says why the server ends the stream. " +
		"A comment comes every 15 s."
	reg := s.api.OpenAPI().Components.Schemas
	op.Responses["200"] = &huma.Response{Description: "A stream of events", Content: map[string]*huma.MediaType{
		"text/event-stream": {Schema: &huma.Schema{OneOf: []*huma.Schema{
			eventSchema(reg), reg.Schema(typeOf[api.StreamEnd](), true, ""),
		}}}}}
	op.Parameters = []*huma.Param{
		{Name: "since", In: "query", Description: "Number of the last event that the reader has", Schema: &huma.Schema{Type: huma.TypeInteger, Format: "int64"}},
		{Name: "Last-Event-ID", In: "header", Description: "The same, as browsers send it; wins over since", Schema: &huma.Schema{Type: huma.TypeString}},
	}
	s.api.OpenAPI().AddOperation(&op)
	s.router.Get("/v1/events", s.watchEvents)
}

// watchEvents streams until the reader leaves, is too slow, or its session ends.
func (s *Server) watchEvents(w http.ResponseWriter, r *http.Request) {
	if err := s.Auth.AuthorizeList(r.Context()); err != nil {
		s.refuse(w, r, err)
		return
	}
	since, err := s.since(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	if s.streams.Add(1) > maxStreams {
		s.streams.Add(-1)
		s.refuse(w, r, &api.Error{Code: api.CodeLimitExceeded, Detail: "too many readers of events"})
		return
	}
	defer s.streams.Add(-1)
	reader, err := s.Journal.Subscribe(r.Context(), since)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	defer reader.Close()
	st := &stream{w: w, rc: http.NewResponseController(w), s: s, caller: auth.CallerOf(r.Context())}
	// An error here is a peer that left or does not read: no one is left to tell.
	_ = st.run(r.Context(), reader, s.sessionDone(r.Context()))
}

func (s *Server) sessionDone(ctx context.Context) <-chan struct{} {
	c := auth.CallerOf(ctx)
	if c.Session == "" {
		return nil
	}
	return s.Sessions.Done(c.Session)
}

func (s *Server) since(r *http.Request) (int64, error) {
	for name := range r.URL.Query() {
		if name != "since" {
			return 0, &api.Error{Code: api.CodeUnknownField, Field: "query." + clip(name), Detail: "unknown query parameter"}
		}
	}
	text := r.Header.Get("Last-Event-ID")
	if text == "" {
		text = r.URL.Query().Get("since")
	}
	if text == "" {
		return s.Journal.Last(), nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, &api.Error{Code: api.CodeInvalidRequest, Field: "query.since", Detail: "not the number of an event"}
	}
	return n, nil
}

// stream writes server-sent events to one reader.
type stream struct {
	w      http.ResponseWriter
	rc     *http.ResponseController
	s      *Server
	caller *auth.Caller
}

func (st *stream) run(ctx context.Context, reader *event.Reader, ended <-chan struct{}) error {
	h := st.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	st.w.WriteHeader(http.StatusOK)
	if err := st.send([]byte(": vmctl\n\n")); err != nil {
		return err
	}
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ended:
			return st.end("dropped", "session ended", reader.At())
		case <-st.s.stopping.Done():
			return st.end("dropped", "the daemon stops", reader.At())
		case <-tick.C:
			if err := st.send([]byte(": alive\n\n")); err != nil {
				return err
			}
		case <-reader.Ready():
			if done, err := st.batch(ctx, reader); done || err != nil {
				return err
			}
		}
	}
}

// batch writes what is there now.
func (st *stream) batch(ctx context.Context, reader *event.Reader) (done bool, err error) {
	events, err := reader.Next(ctx)
	switch {
	case errors.Is(err, event.ErrTooOld):
		return false, st.end("reset", "the journal does not reach back that far", reader.Skip())
	case errors.Is(err, event.ErrSlow):
		return true, st.end("dropped", "the reader was too slow", reader.At())
	case err != nil:
		return true, err
	}
	var out []byte
	for _, e := range events {
		if st.visible(&e.Event) {
			out = append(out, e.Wire...)
		}
	}
	if len(out) == 0 {
		return false, nil
	}
	return false, st.send(out)
}

// visible decides per event, with the grants of now.
func (st *stream) visible(e *api.Event) bool {
	switch {
	case e.VM != nil:
		return st.s.Auth.Can(st.caller, auth.ActionView, e.VM.ID)
	case e.Kind == api.EventHostStarted || e.Kind == api.EventHostKernelLost || e.Kind == api.EventHostKernelBack:
		return st.s.Auth.Can(st.caller, auth.ActionHost, "")
	default: // refused callers, sessions, VMs of strangers
		return st.s.Auth.Can(st.caller, auth.ActionSecurity, "")
	}
}

func (st *stream) end(kind, reason string, seq int64) error {
	data, err := json.Marshal(api.StreamEnd{Reason: reason, Seq: seq})
	if err != nil {
		return err
	}
	return st.send(fmt.Appendf(nil, "id: %d\nevent: %s\ndata: %s\n\n", seq, kind, data))
}

func (st *stream) send(b []byte) error {
	if err := st.rc.SetWriteDeadline(st.s.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if _, err := st.w.Write(b); err != nil {
		return err
	}
	return st.rc.Flush()
}
