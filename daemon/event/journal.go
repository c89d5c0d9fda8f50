// SPDX-License-Identifier: Apache-2.0

// Package event hands the journal of events to its readers. The journal itself
// is rows of the store, numbered without gaps; this package keeps the last of
// them in memory, already encoded, and one cursor per reader: a reader costs
// no queue, and a slow one delays nobody.
package event

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"vmctl/daemon/api"
)

const (
	ringSize  = 8192 // events kept in memory
	batchSize = 256  // events that one Next returns at most
	maxBehind = 4096 // a reader that was up to date and falls further behind is slow
)

var (
	// ErrTooOld says that the journal does not reach back to the reader's cursor,
	// or never reached it. Skip goes on from the end.
	ErrTooOld = errors.New("event journal does not hold that number")
	// ErrSlow says that the reader fell behind events that others have long read.
	ErrSlow = errors.New("event reader is too slow")
)

// Source is where events older than memory are read.
type Source interface {
	// Events returns at most limit events after seq, in order.
	Events(ctx context.Context, after int64, limit int) ([]api.Event, error)
	// EventRange returns the numbers of the first and the last event.
	EventRange(ctx context.Context) (first, last int64, err error)
}

// Entry is an event and its form on the wire.
type Entry struct {
	Event api.Event
	Wire  []byte // one server-sent event, shared: not to be changed
}

// Journal tells readers of new events. It is safe for concurrent use.
type Journal struct {
	source Source

	mu      sync.Mutex
	ring    []Entry              // [mu] consecutive, the last one is number last
	last    int64                // [mu]
	readers map[*Reader]struct{} // [mu]
}

// New returns the journal of source. Publish must be called with every event
// after that.
func New(ctx context.Context, source Source) (*Journal, error) {
	_, last, err := source.EventRange(ctx)
	if err != nil {
		return nil, fmt.Errorf("event journal: %w", err)
	}
	return &Journal{source: source, last: last, readers: make(map[*Reader]struct{})}, nil
}

// Publish tells all readers of events that are durable now. Calls come in the
// order of the numbers, one at a time.
func (j *Journal) Publish(events []api.Event) {
	if len(events) == 0 {
		return
	}
	entries := make([]Entry, len(events))
	for i := range events {
		entries[i] = Entry{Event: events[i], Wire: wire(&events[i])}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ring = append(j.ring, entries...)
	if extra := len(j.ring) - ringSize; extra >= ringSize/4 {
		j.ring = append(make([]Entry, 0, ringSize*3/2), j.ring[extra:]...)
	}
	j.last = events[len(events)-1].Seq
	for r := range j.readers {
		r.signal()
	}
}

// Last returns the number of the last event.
func (j *Journal) Last() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.last
}

// Subscribe returns a reader of everything after since. It must be closed.
func (j *Journal) Subscribe(_ context.Context, since int64) (*Reader, error) {
	r := &Reader{j: j, at: since, ready: make(chan struct{}, 1)}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.readers[r] = struct{}{}
	r.live = since == j.last
	if !r.live {
		r.signal()
	}
	return r, nil
}

// wire encodes e once for all readers. Kinds are constants and JSON holds no
// newline, so nothing in it can begin a field of its own.
func wire(e *api.Event) []byte {
	data, err := json.Marshal(e)
	if err != nil {
		// Data is made by this daemon; what does not encode is told as empty.
		c := *e
		c.Data = json.RawMessage("{}")
		data, _ = json.Marshal(&c)
	}
	return fmt.Appendf(nil, "id: %d\nevent: %s\ndata: %s\n\n", e.Seq, e.Kind, data)
}
