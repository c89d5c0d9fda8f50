// SPDX-License-Identifier: Apache-2.0

package event

import (
	"context"
)

// Reader is one reader's place in the journal. One goroutine uses it.
type Reader struct {
	j     *Journal
	at    int64 // number of the last event that was returned
	live  bool  // the reader was up to date once
	ready chan struct{}
}

// Ready yields when Next has something to return.
func (r *Reader) Ready() <-chan struct{} { return r.ready }

// At returns the number of the last event that was returned.
func (r *Reader) At() int64 { return r.at }

// Close ends the reader.
func (r *Reader) Close() {
	r.j.mu.Lock()
	defer r.j.mu.Unlock()
	delete(r.j.readers, r)
}

// Skip moves to the end of the journal and returns the number there.
func (r *Reader) Skip() int64 {
	r.at = r.j.Last()
	r.live = true
	return r.at
}

// Next returns the events that follow, or none when there is no more. The
// error is ErrTooOld, ErrSlow or that of the store.
func (r *Reader) Next(ctx context.Context) ([]Entry, error) {
	entries, last, inRing := r.fromRing()
	if !inRing {
		var err error
		if entries, err = r.fromSource(ctx, last); err != nil {
			return nil, err
		}
	}
	if r.live && last-r.at > maxBehind {
		return nil, ErrSlow
	}
	if len(entries) > 0 {
		r.at = entries[len(entries)-1].Event.Seq
	}
	if r.at < last {
		r.signal()
	} else {
		r.live = true
	}
	return entries, nil
}

// fromRing returns what memory holds after the cursor, and whether it holds it.
func (r *Reader) fromRing() (entries []Entry, last int64, ok bool) {
	r.j.mu.Lock()
	defer r.j.mu.Unlock()
	last = r.j.last
	behind := last - r.at
	if behind < 0 || behind > int64(len(r.j.ring)) {
		return nil, last, false
	}
	entries = r.j.ring[int64(len(r.j.ring))-behind:]
	return entries[:min(len(entries), batchSize)], last, true
}

func (r *Reader) fromSource(ctx context.Context, last int64) ([]Entry, error) {
	first, _, err := r.j.source.EventRange(ctx)
	if err != nil {
		return nil, err
	}
	if r.at > last || r.at+1 < first {
		return nil, ErrTooOld
	}
	events, err := r.j.source.Events(ctx, r.at, batchSize)
	if err != nil {
		return nil, err
	}
	entries := make([]Entry, len(events))
	for i := range events {
		entries[i] = Entry{Event: events[i], Wire: wire(&events[i])}
	}
	return entries, nil
}

// signal makes Ready yield; a signal that is there already is enough.
func (r *Reader) signal() {
	select {
	case r.ready <- struct{}{}:
	default:
	}
}
