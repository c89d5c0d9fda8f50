// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"vmctl/daemon/api"
	"vmctl/daemon/client"
)

// script plays one function for each connection of an event stream and notes
// where each began.
type script struct {
	t     *testing.T
	steps []func(w http.ResponseWriter, r *http.Request)

	mu   sync.Mutex
	from []string
}

func (s *script) began() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.from)
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/v1/events" || r.URL.RawQuery != "since="+r.Header.Get("Last-Event-ID") {
		s.t.Errorf("asked for %s with Last-Event-ID %q", r.URL, r.Header.Get("Last-Event-ID"))
	}
	s.mu.Lock()
	n := len(s.from)
	s.from = append(s.from, r.Header.Get("Last-Event-ID"))
	s.mu.Unlock()
	if n >= len(s.steps) {
		refuse(w, 403, api.CodeForbidden, "the script is over")
		return
	}
	s.steps[n](w, r)
}

// sends writes parts of a stream and ends the connection.
func sends(parts ...string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, ": vmctl\n\n", strings.Join(parts, ""))
	}
}

// stays writes parts and keeps the connection until the reader leaves.
func stays(parts ...string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		sends(parts...)(w, r)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
}

func ev(seq int) string {
	return fmt.Sprintf("id: %d\nevent: vm.state\ndata: {\"seq\":%d,\"kind\":\"vm.state\"}\n\n", seq, seq)
}

// read collects numbers, -1 for a reset, until the stream ends.
func read(ctx context.Context, c *client.Client, opt client.EventOptions) (seqs []int64, last error) {
	for event, err := range c.Events(ctx, opt) {
		switch {
		case errors.Is(err, client.ErrReset):
			seqs = append(seqs, -1)
		case err != nil:
			return seqs, err
		default:
			seqs = append(seqs, event.Seq)
		}
	}
	return seqs, nil
}

func TestEventsAreTakenUpWhereTheyEnded(t *testing.T) {
	s := &script{t: t, steps: []func(http.ResponseWriter, *http.Request){
		sends(ev(6), ev(7)),
		func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) },
		func(w http.ResponseWriter, _ *http.Request) { cut(t, w) },
		sends(ev(7), ev(8), "id: 9\nevent: vm.state\ndata: {\"se"), // 7 again, 9 cut off
		sends(ev(9), "event: dropped\ndata: {\"reason\":\"too slow\",\"seq\":9}\n\n"),
		sends(ev(10)),
	}}
	c := onUnix(t, s)
	var lost []string
	seqs, err := read(t.Context(), c, client.EventOptions{Since: 5, Lost: func(err error, _ time.Duration) { lost = append(lost, err.Error()) }})
	if !errors.Is(err, client.ErrForbidden) {
		t.Errorf("ended with %v", err)
	}
	if !slices.Equal(seqs, []int64{6, 7, 8, 9, 10}) {
		t.Errorf("read %v", seqs)
	}
	if want := []string{"5", "7", "7", "7", "8", "9", "10"}; !slices.Equal(s.began(), want) {
		t.Errorf("connections began at %v, want %v", s.began(), want)
	}
	// A connection that was cut before its answer net/http may take up itself.
	if len(lost) < 5 || !strings.Contains(strings.Join(lost, "\n"), "too slow") {
		t.Errorf("told of losses %q", lost)
	}
}

func TestEventsReset(t *testing.T) {
	s := &script{t: t, steps: []func(http.ResponseWriter, *http.Request){
		sends("event: reset\ndata: {\"reason\":\"too old\",\"seq\":100}\n\n", ev(101)),
		sends(ev(102)),
	}}
	c := onUnix(t, s)
	seqs, _ := read(t.Context(), c, client.EventOptions{Since: 1})
	if !slices.Equal(seqs, []int64{-1, 101, 102}) || !slices.Equal(s.began(), []string{"1", "101", "102"}) {
		t.Errorf("read %v from %v", seqs, s.began())
	}
}

func TestEventsUntil(t *testing.T) {
	cases := []struct {
		name string
		step func(http.ResponseWriter, *http.Request)
		want []int64
	}{
		{"its number", stays(ev(1), ev(2), ev(3)), []int64{1, 2}},
		{"a number above", stays(ev(1), ev(3)), []int64{1}},
		{"caught up", stays(ev(1), ": caught up\n\n"), []int64{1}},
		{"a heartbeat", stays(ev(1), ": alive\n\n"), []int64{1}},
		{"a reset beyond", stays("event: reset\ndata: {\"seq\":9}\n\n"), []int64{-1}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			s := &script{t: t, steps: []func(http.ResponseWriter, *http.Request){tc.step}}
			seqs, err := read(t.Context(), onUnix(t, s), client.EventOptions{Until: 2})
			if err != nil || !slices.Equal(seqs, tc.want) {
				t.Errorf("read %v, %v", seqs, err)
			}
		})
	}
	if seqs, err := read(t.Context(), newClient(t, client.Config{Socket: "/none"}), client.EventOptions{Since: 2, Until: 2}); len(seqs) != 0 || err != nil {
		t.Errorf("nothing to read gave %v, %v", seqs, err)
	}
}

func TestEventsEndWithTheirReader(t *testing.T) {
	s := &script{t: t, steps: []func(http.ResponseWriter, *http.Request){stays(ev(1), ev(2)), stays(ev(1))}}
	c := onUnix(t, s)
	for range c.Events(t.Context(), client.EventOptions{}) {
		break
	}
	ctx, cancel := context.WithCancel(t.Context())
	for _, err := range c.Events(ctx, client.EventOptions{}) {
		if err != nil {
			t.Errorf("the end of the context gave %v", err)
		}
		cancel()
	}
	cancel()
}

func TestSilentStreamsAreLeft(t *testing.T) {
	s := &script{t: t, steps: []func(http.ResponseWriter, *http.Request){stays(ev(1)), sends(ev(2))}}
	c := onUnix(t, s)
	c.Hasten(time.Millisecond, 50*time.Millisecond)
	var lost error
	seqs, _ := read(t.Context(), c, client.EventOptions{Lost: func(err error, _ time.Duration) {
		if lost == nil {
			lost = err
		}
	}})
	if !slices.Equal(seqs, []int64{1, 2}) || lost == nil || !strings.Contains(lost.Error(), "fell silent") {
		t.Errorf("read %v, told of %v", seqs, lost)
	}
}

func TestBrokenStreamsEnd(t *testing.T) {
	cases := map[string]string{
		"not JSON":        "data: {\n\n",
		"no number":       "data: {}\n\n",
		"a bad reset":     "event: reset\ndata: x\n\n",
		"a bad drop":      "event: dropped\ndata: x\n\n",
		"endless message": "data: " + strings.Repeat("x", 5<<20),
		"endless lines":   strings.Repeat("data: x\n", 1<<20),
	}
	for name, text := range cases {
		t.Run(name, func(t *testing.T) {
			s := &script{t: t, steps: []func(http.ResponseWriter, *http.Request){sends(ev(1), text)}}
			seqs, err := read(t.Context(), onUnix(t, s), client.EventOptions{})
			if len(seqs) != 1 || err == nil || errors.Is(err, client.ErrForbidden) {
				t.Errorf("read %v, %v", seqs, err)
			}
		})
	}
}

func TestEventsWithoutAServer(t *testing.T) {
	c := newClient(t, client.Config{Socket: t.TempDir() + "/none"})
	if _, err := read(t.Context(), c, client.EventOptions{}); !client.Unreachable(err) {
		t.Errorf("ended with %v", err)
	}
}
