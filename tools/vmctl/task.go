// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vmctl/daemon/api"
	"vmctl/daemon/client"
)

func (p *program) tasksCommand() *cobra.Command {
	list := p.taskList()
	group := p.group(&cobra.Command{Use: "tasks", Aliases: []string{"task"}, Short: "List tasks and show how they ended"},
		list, p.taskShow())
	group.RunE = list.RunE
	group.Flags().AddFlagSet(list.Flags())
	return group
}

func (p *program) taskList() *cobra.Command {
	var (
		filter client.TaskFilter
		state  string
		limit  = 20
	)
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List tasks, newest first", Args: words(0, 0),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: p.with(func(ctx context.Context, c *client.Client, _ []string) error {
			filter.State = api.TaskState(state)
			tasks := []api.Task{}
			for task, err := range c.Tasks(ctx, filter) {
				if err != nil {
					return err
				}
				if limit > 0 && len(tasks) == limit {
					break
				}
				tasks = append(tasks, task)
			}
			return p.listTasks(tasks)
		}),
	}
	cmd.Flags().StringVar(&filter.VM, "vm", "", "only tasks of this VM, by name or uuid")
	cmd.Flags().StringVar(&state, "state", "", "only tasks in this state: queued, running, succeeded, failed")
	cmd.Flags().IntVar(&limit, "limit", limit, "at most so many, 0 for all")
	must(cmd.RegisterFlagCompletionFunc("vm", p.completeVM))
	must(cmd.RegisterFlagCompletionFunc("state", fixed(string(api.TaskQueued), string(api.TaskRunning),
		string(api.TaskSucceeded), string(api.TaskFailed))))
	return cmd
}

func (p *program) listTasks(tasks []api.Task) error {
	if p.format == formatJSON {
		return p.json(tasks)
	}
	rows := make([][]string, len(tasks))
	for i, task := range tasks {
		rows[i] = []string{task.ID, taskVerb(task.Kind), vmName(task.VM), taskWord(&task), p.age(task.CreatedAt)}
	}
	return p.table([]string{"TASK", "KIND", "VM", "STATE", "AGE"}, rows)
}

func taskVerb(kind api.TaskKind) string { return strings.TrimPrefix(string(kind), "vm.") }

func vmName(ref *api.VMRef) string {
	if ref == nil {
		return ""
	}
	return ref.Name
}

// taskWord is the state, with what a task that has not ended still has to go.
func taskWord(task *api.Task) string {
	switch {
	case task.State == api.TaskRunning:
		return fmt.Sprintf("running %d%%", task.Progress)
	case task.State == api.TaskQueued && task.QueuePosition > 0:
		return fmt.Sprintf("queued (%d before)", task.QueuePosition)
	}
	return string(task.State)
}

func (p *program) taskShow() *cobra.Command {
	var w waiting
	wait := false
	cmd := &cobra.Command{
		Use: "show TASK", Short: "Show one task", Args: words(1, 1), ValidArgsFunction: p.completeTask,
		RunE: p.with(func(ctx context.Context, c *client.Client, args []string) error {
			task, err := c.Task(ctx, args[0])
			if err != nil {
				return err
			}
			var ended error
			if wait {
				if task, ended = w.end(ctx, c, task); task == nil {
					return ended
				}
			}
			if err := p.showTask(task); err != nil {
				return err
			}
			return ended
		}),
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "wait for its end; exit 1 if it failed")
	cmd.Flags().DurationVar(&w.limit, "timeout", 0, "wait at most so long: 30s, 2m (default: no limit)")
	return cmd
}

func (p *program) showTask(task *api.Task) error {
	if p.format == formatJSON {
		return p.json(task)
	}
	reason := ""
	if task.Error != nil {
		reason = fmt.Sprintf("%s (%s)", task.Error.Detail, task.Error.Code)
	}
	return p.fields(
		[2]string{"Task", task.ID},
		[2]string{"Kind", taskVerb(task.Kind)},
		[2]string{"VM", vmName(task.VM)},
		[2]string{"State", string(task.State)},
		[2]string{"Progress", strconv.Itoa(task.Progress) + "%"},
		[2]string{"Error", reason},
		[2]string{"Actor", task.Actor},
		[2]string{"Request", task.RequestID},
		[2]string{"Created", p.date(task.CreatedAt)},
		[2]string{"Started", p.dateOf(task.StartedAt)},
		[2]string{"Ended", p.dateOf(task.EndedAt)},
	)
}

func (p *program) dateOf(t *time.Time) string {
	if t == nil {
		return ""
	}
	return p.date(*t)
}
