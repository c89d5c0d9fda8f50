// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"sync"
	"time"

	"vmctl/daemon/api"
)

// Record is where tasks are kept.
type Record interface {
	// Task returns a task; the error is an *api.Error with CodeNotFound.
	Task(ctx context.Context, id string) (api.Task, error)
}

// Board is where callers wait for the end of tasks. It is safe for concurrent use.
type Board struct {
	record Record

	mu      sync.Mutex
	waiting map[string]*wait // [mu]
}

type wait struct {
	ended   chan struct{} // closed at the end of the task
	waiters int           // [Board.mu]
}

// NewBoard returns a board of the tasks in record.
func NewBoard(record Record) *Board {
	return &Board{record: record, waiting: make(map[string]*wait)}
}

// Ended wakes who waits for a task whose end is durable.
func (b *Board) Ended(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if w := b.waiting[id]; w != nil {
		close(w.ended)
		delete(b.waiting, id)
	}
}

// Get returns a task as it is now.
func (b *Board) Get(ctx context.Context, id string) (api.Task, error) {
	return b.record.Task(ctx, id)
}

// Wait returns a task once it has ended, or as it is after d.
func (b *Board) Wait(ctx context.Context, id string, d time.Duration) (api.Task, error) {
	w := b.join(id)
	defer b.leave(id, w)
	// Read after joining: an end before that is seen here, a later one wakes us.
	t, err := b.record.Task(ctx, id)
	if err != nil || t.Ended() {
		return t, err
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-w.ended:
	case <-timer.C:
	case <-ctx.Done():
		return t, ctx.Err()
	}
	return b.record.Task(ctx, id)
}

func (b *Board) join(id string) *wait {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.waiting[id]
	if w == nil {
		w = &wait{ended: make(chan struct{})}
		b.waiting[id] = w
	}
	w.waiters++
	return w
}

func (b *Board) leave(id string, w *wait) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w.waiters--
	if w.waiters == 0 && b.waiting[id] == w {
		delete(b.waiting, id)
	}
}
