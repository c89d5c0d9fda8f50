// SPDX-License-Identifier: Apache-2.0

package event_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"vmctl/daemon/api"
	"vmctl/daemon/event"
)

// rows is a journal on a disk that was trimmed to what is after first.
type rows struct{ first, last int64 }

func (r *rows) EventRange(context.Context) (int64, int64, error) { return r.first, r.last, nil }

func (r *rows) Events(_ context.Context, after int64, limit int) ([]api.Event, error) {
	var out []api.Event
	for seq := max(after+1, r.first); seq <= r.last && len(out) < limit; seq++ {
		out = append(out, api.Event{Seq: seq, Kind: api.EventVMChanged, Data: []byte("{}")})
	}
	return out, nil
}

func publish(j *event.Journal, r *rows, n int) {
	for range n {
		r.last++
		j.Publish([]api.Event{{Seq: r.last, Kind: api.EventVMChanged, Data: []byte("{}")}})
	}
}

// readAll reads until nothing is left and checks that no number is missing.
func readAll(t *testing.T, r *event.Reader) int64 {
	t.Helper()
	for {
		select {
		case <-r.Ready():
		default:
			return r.At()
		}
		at := r.At()
		entries, err := r.Next(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			at++
			if e.Event.Seq != at || !strings.HasPrefix(string(e.Wire), "id: ") {
				t.Fatalf("event %d, want %d", e.Event.Seq, at)
			}
		}
	}
}

// TestReader reads from the disk into memory and on, without a gap.
func TestReader(t *testing.T) {
	disk := &rows{first: 1, last: 1000}
	j, err := event.New(context.Background(), disk)
	if err != nil {
		t.Fatal(err)
	}
	r, _ := j.Subscribe(context.Background(), 10)
	defer r.Close()
	publish(j, disk, 500)
	if at := readAll(t, r); at != 1500 {
		t.Errorf("read up to %d", at)
	}
	publish(j, disk, 3)
	if at := readAll(t, r); at != 1503 {
		t.Errorf("read up to %d", at)
	}
}

func TestTooOld(t *testing.T) {
	disk := &rows{first: 100, last: 200}
	j, err := event.New(context.Background(), disk)
	if err != nil {
		t.Fatal(err)
	}
	for since, want := range map[int64]error{0: event.ErrTooOld, 98: event.ErrTooOld, 99: nil, 150: nil, 201: event.ErrTooOld} {
		r, _ := j.Subscribe(context.Background(), since)
		<-r.Ready()
		if _, err := r.Next(context.Background()); !errors.Is(err, want) {
			t.Errorf("since %d: %v, want %v", since, err, want)
		}
		if want != nil && r.Skip() != 200 {
			t.Error("skip does not lead to the end")
		}
		r.Close()
	}
}

// TestSlow: who was up to date and stops reading is told so; who catches up
// from far behind is not.
func TestSlow(t *testing.T) {
	disk := &rows{first: 1, last: 20_000}
	j, err := event.New(context.Background(), disk)
	if err != nil {
		t.Fatal(err)
	}
	late, _ := j.Subscribe(context.Background(), 0)
	defer late.Close()
	live, _ := j.Subscribe(context.Background(), 20_000)
	defer live.Close()
	publish(j, disk, 12_000) // more than memory holds
	<-live.Ready()
	if _, err := live.Next(context.Background()); !errors.Is(err, event.ErrSlow) {
		t.Errorf("slow reader: %v", err)
	}
	if at := readAll(t, late); at != 32_000 {
		t.Errorf("late reader stopped at %d", at)
	}
}
