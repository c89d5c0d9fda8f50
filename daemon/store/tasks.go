// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"vmctl/daemon/api"
)

// PutTask adds or replaces a task.
func (t *Tx) PutTask(k api.Task) error {
	text, err := json.Marshal(&k)
	if err != nil {
		return fmt.Errorf("store: put task: %w", err)
	}
	vm := ""
	if k.VM != nil {
		vm = k.VM.ID
	}
	return t.exec(`INSERT INTO tasks (id, vm, state, created, task) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET state = excluded.state, task = excluded.task`,
		k.ID, vm, string(k.State), k.CreatedAt.UnixMilli(), string(text))
}

// Task returns a task. The error is an *api.Error with CodeNotFound.
func (s *Store) Task(ctx context.Context, id string) (api.Task, error) {
	var text string
	var k api.Task
	err := s.read.QueryRowContext(ctx, `SELECT task FROM tasks WHERE id = ?`, id).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return k, &api.Error{Code: api.CodeNotFound, Detail: "no such task"}
	}
	if err != nil {
		return k, fmt.Errorf("store: task: %w", err)
	}
	if err := json.Unmarshal([]byte(text), &k); err != nil {
		return k, fmt.Errorf("store: task: %w", err)
	}
	return k, nil
}

// OpenTasks returns the tasks that did not end, oldest first.
func (s *Store) OpenTasks(ctx context.Context) ([]api.Task, error) {
	tasks, _, err := scanTasks(s.write.QueryContext(ctx, `SELECT at, task FROM tasks WHERE state IN ('queued', 'running') ORDER BY at`))
	return tasks, err
}

// Tasks returns at most limit tasks, newest first, with the place of each; vm
// and state select unless empty, before is a place or 0. seq is the number of
// the last event in them.
func (s *Store) Tasks(ctx context.Context, vm string, state api.TaskState, before int64, limit int) (tasks []api.Task, at []int64, seq int64, err error) {
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, nil, 0, fmt.Errorf("store: tasks: %w", err)
	}
	defer tx.Rollback() // nothing was changed
	if err := tx.QueryRowContext(ctx, `SELECT coalesce(max(seq), 0) FROM events`).Scan(&seq); err != nil {
		return nil, nil, 0, fmt.Errorf("store: tasks: %w", err)
	}
	where, args := []string{"1"}, []any{}
	add := func(cond string, arg any) { where, args = append(where, cond), append(args, arg) }
	if vm != "" {
		add("vm = ?", vm)
	}
	if state != "" {
		add("state = ?", string(state))
	}
	if before > 0 {
		add("at < ?", before)
	}
	args = append(args, limit)
	tasks, at, err = scanTasks(tx.QueryContext(ctx, `SELECT at, task FROM tasks WHERE `+strings.Join(where, " AND ")+` ORDER BY at DESC LIMIT ?`, args...))
	return tasks, at, seq, err
}

// TaskStates counts the tasks by state.
func (s *Store) TaskStates(ctx context.Context) (map[api.TaskState]int, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT state, count(*) FROM tasks GROUP BY state`)
	if err != nil {
		return nil, fmt.Errorf("store: count tasks: %w", err)
	}
	defer rows.Close()
	counts := make(map[api.TaskState]int)
	for rows.Next() {
		var state api.TaskState
		var n int
		if err := rows.Scan(&state, &n); err != nil {
			return nil, fmt.Errorf("store: count tasks: %w", err)
		}
		counts[state] = n
	}
	return counts, rows.Err()
}

func scanTasks(rows *sql.Rows, err error) ([]api.Task, []int64, error) {
	if err != nil {
		return nil, nil, fmt.Errorf("store: tasks: %w", err)
	}
	defer rows.Close()
	var tasks []api.Task
	var places []int64
	for rows.Next() {
		var at int64
		var text string
		var k api.Task
		if err := rows.Scan(&at, &text); err != nil {
			return nil, nil, fmt.Errorf("store: tasks: %w", err)
		}
		if err := json.Unmarshal([]byte(text), &k); err != nil {
			return nil, nil, fmt.Errorf("store: tasks: %w", err)
		}
		tasks, places = append(tasks, k), append(places, at)
	}
	return tasks, places, rows.Err()
}
