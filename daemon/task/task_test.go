// SPDX-License-Identifier: Apache-2.0

package task_test

import (
	"context"
	"testing"
	"time"

	"vmctl/daemon/api"
	"vmctl/daemon/task"
)

func TestQueue(t *testing.T) {
	var q task.Queue
	for i := range task.MaxQueued {
		if q.Full() {
			t.Fatalf("full at %d", i)
		}
		q.Push(api.Task{ID: string(rune('a' + i)), QueuePosition: i + 1})
	}
	if !q.Full() || q.Len() != task.MaxQueued {
		t.Error("not full")
	}
	if changed := q.Renumber(1); len(changed) != 0 {
		t.Errorf("positions changed: %v", changed)
	}
	if k, ok := q.Pop(); !ok || k.ID != "a" {
		t.Errorf("popped %v", k)
	}
	if changed := q.Renumber(1); len(changed) != task.MaxQueued-1 || changed[0].ID != "b" || changed[0].QueuePosition != 1 {
		t.Errorf("positions: %v", changed)
	}
}

type record chan api.Task

func (r record) Task(context.Context, string) (api.Task, error) {
	k := <-r
	r <- k
	return k, nil
}

// TestWait: an end wakes, time passes, a caller leaves.
func TestWait(t *testing.T) {
	r := make(record, 1)
	r <- api.Task{ID: "a", State: api.TaskRunning}
	b := task.NewBoard(r)
	if k, err := b.Wait(context.Background(), "a", time.Millisecond); err != nil || k.Ended() {
		t.Errorf("%v %v", k, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := b.Wait(ctx, "a", time.Hour); err == nil {
		t.Error("a caller that left waits")
	}
	done := make(chan api.Task)
	go func() {
		k, _ := b.Wait(context.Background(), "a", time.Hour)
		done <- k
	}()
	<-r
	r <- api.Task{ID: "a", State: api.TaskSucceeded}
	b.Ended("a") // before or after it began to wait: both are right
	if k := <-done; !k.Ended() {
		t.Errorf("woken with %v", k)
	}
}
