// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"

	"vmctl/daemon/api"
	"vmctl/daemon/auth"
)

const maxWait = 60 * time.Second

type listTasksInput struct {
	VM     string        `query:"vm" maxLength:"128" doc:"Only tasks of this VM: uuid or name; tasks of a deleted VM by its uuid"`
	State  api.TaskState `query:"state" enum:"queued,running,succeeded,failed"`
	Limit  int           `query:"limit" minimum:"1" maximum:"1000" default:"100"`
	Cursor string        `query:"cursor" maxLength:"512"`
}

type listTasksOutput struct{ Body api.TaskList }

type getTaskInput struct {
	ID   string `path:"id" maxLength:"128"`
	Wait string `query:"wait" maxLength:"16" doc:"Answer when the task has ended, or after this long: 30s, at most 60s"`
}

type taskOutput struct{ Body api.Task }

func (s *Server) registerTasks() {
	handle(s, s.op("listTasks", http.MethodGet, "/v1/tasks", "Tasks, newest first; kept for days"), s.listTasks)
	handle(s, s.op("getTask", http.MethodGet, "/v1/tasks/{id}", "One task; ?wait= waits for its end"), s.getTask)
}

// mayViewTask decides by the task's VM, which may be gone: a grant on all VMs
// still covers it then.
func (s *Server) mayViewTask(c *auth.Caller, t api.Task) bool {
	vm := ""
	if t.VM != nil {
		vm = t.VM.ID
	}
	return s.Auth.Can(c, auth.ActionView, vm)
}

func (s *Server) listTasks(ctx context.Context, in *listTasksInput) (*listTasksOutput, error) {
	if err := s.Auth.AuthorizeList(ctx); err != nil {
		return nil, err
	}
	filter, err := s.taskFilter(in)
	if err != nil {
		return nil, err
	}
	page := api.TaskList{Items: []api.Task{}}
	caller := auth.CallerOf(ctx)
	for {
		tasks, at, seq, err := s.Tasks.List(ctx, filter)
		if err != nil {
			return nil, err
		}
		if page.EventSeq == 0 {
			page.EventSeq = seq
		}
		for i, t := range tasks {
			if !s.mayViewTask(caller, t) {
				continue
			}
			if len(page.Items) == in.Limit {
				page.NextCursor = encodeCursor("tasks", strconv.FormatInt(filter.Before, 10))
				return &listTasksOutput{Body: page}, nil
			}
			page.Items = append(page.Items, t)
			filter.Before = at[i]
		}
		if len(tasks) < filter.Limit {
			return &listTasksOutput{Body: page}, nil
		}
		filter.Before = at[len(at)-1]
	}
}

// taskFilter reads the query. One row more than the page is asked for, to
// know whether there is a next one.
func (s *Server) taskFilter(in *listTasksInput) (TaskFilter, error) {
	f := TaskFilter{State: in.State, Limit: in.Limit + 1}
	last, err := decodeCursor("tasks", in.Cursor)
	if err != nil {
		return f, err
	}
	if last != "" {
		if f.Before, err = strconv.ParseInt(last, 10, 64); err != nil || f.Before < 1 {
			return f, &api.Error{Code: api.CodeInvalidRequest, Field: "query.cursor", Detail: "not a cursor of this list"}
		}
	}
	if in.VM == "" {
		return f, nil
	}
	if !api.ValidIdent(in.VM) {
		return f, &api.Error{Code: api.CodeNameInvalid, Field: "query.vm", Detail: "neither a uuid nor a name"}
	}
	if _, err := uuid.Parse(in.VM); err == nil {
		f.VM = in.VM
		return f, nil
	}
	vm, err := s.Machines.Find(in.VM)
	if err != nil {
		return f, err
	}
	f.VM = vm.ID
	return f, nil
}

func (s *Server) getTask(ctx context.Context, in *getTaskInput) (*taskOutput, error) {
	if err := s.Auth.AuthorizeList(ctx); err != nil {
		return nil, err
	}
	wait, err := parseWait(in.Wait)
	if err != nil {
		return nil, err
	}
	t, err := s.Tasks.Get(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if !s.mayViewTask(auth.CallerOf(ctx), t) {
		return nil, &api.Error{Code: api.CodeNotFound, Detail: "no such task"}
	}
	if wait > 0 && !t.Ended() {
		wctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(s.stopping, cancel)()
		if t, err = s.Tasks.Wait(wctx, in.ID, wait); err != nil {
			return nil, err
		}
	}
	return &taskOutput{Body: t}, nil
}

func parseWait(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > maxWait {
		return 0, &api.Error{Code: api.CodeInvalidRequest, Field: "query.wait", Detail: "not a duration from 0s to 60s"}
	}
	return d, nil
}
