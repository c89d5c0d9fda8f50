// SPDX-License-Identifier: Apache-2.0

package task

import (
	"slices"

	"vmctl/daemon/api"
)

// MaxQueued is how many tasks of one VM wait at most.
const MaxQueued = 16

// Queue is the waiting tasks of one VM, oldest first. Its owner is the
// goroutine of that VM: it holds no lock.
type Queue struct {
	waiting []api.Task
}

// Full reports whether no task can be added.
func (q *Queue) Full() bool { return len(q.waiting) >= MaxQueued }

// Len returns how many tasks wait.
func (q *Queue) Len() int { return len(q.waiting) }

// Has reports whether a task of that kind waits.
func (q *Queue) Has(kind api.TaskKind) bool {
	return q.Any(func(t api.Task) bool { return t.Kind == kind })
}

// Any reports whether a task that waits is one of those.
func (q *Queue) Any(is func(api.Task) bool) bool { return slices.ContainsFunc(q.waiting, is) }

// Push adds t behind the others.
func (q *Queue) Push(t api.Task) { q.waiting = append(q.waiting, t) }

// Pop takes the oldest task out.
func (q *Queue) Pop() (api.Task, bool) {
	if len(q.waiting) == 0 {
		return api.Task{}, false
	}
	t := q.waiting[0]
	q.waiting = q.waiting[1:]
	return t, true
}

// Renumber sets the positions, when ahead tasks are before the first one here,
// and returns those whose position changed.
func (q *Queue) Renumber(ahead int) []api.Task {
	var changed []api.Task
	for i := range q.waiting {
		if pos := ahead + i; q.waiting[i].QueuePosition != pos {
			q.waiting[i].QueuePosition = pos
			changed = append(changed, q.waiting[i])
		}
	}
	return changed
}
