// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"strings"
	"sync"

	"vmctl/daemon/api"
	"vmctl/daemon/auth"
	"vmctl/daemon/task"
)

// Replay keeps what requests with an Idempotency-Key were answered with. The
// answer of a change is kept by the change's own transaction: see task.Origin.
type Replay interface {
	// Answered returns a kept answer, or nil; status is 0 for that of a change.
	// fits is false when the key was used with another body.
	Answered(ctx context.Context, c *task.Claim) (status int, body []byte, fits bool, err error)
	// KeepRefusal keeps an answer that changed nothing.
	KeepRefusal(ctx context.Context, c *task.Claim, status int, body []byte) error
}

const maxKey = 128 // bytes of an Idempotency-Key

// inFlight is the keys of requests that are being answered. It needs no disk:
// a request ends with the daemon, and either its change is kept or there is none.
type inFlight struct {
	mu   sync.Mutex
	keys map[string]struct{} // [mu] scope and key
}

func (f *inFlight) enter(c *task.Claim) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.keys == nil {
		f.keys = make(map[string]struct{})
	}
	k := c.Scope + "\n" + c.Key
	if _, busy := f.keys[k]; busy {
		return false
	}
	f.keys[k] = struct{}{}
	return true
}

func (f *inFlight) leave(c *task.Claim) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.keys, c.Scope+"\n"+c.Key)
}

// once answers a request: from what is kept when its key was used before.
func (s *Server) once(w *recorder, r *http.Request, body []byte, origin *task.Origin) {
	key := r.Header.Get("Idempotency-Key")
	if key == "" || r.Method != http.MethodPost || isConsoleToken(r.URL.Path) {
		s.router.ServeHTTP(w, r)
		return
	}
	if len(key) > maxKey || strings.IndexFunc(key, func(c rune) bool { return c <= ' ' || c > '~' }) >= 0 {
		s.refuse(w, r, &api.Error{Code: api.CodeInvalidRequest, Field: "header.Idempotency-Key", Detail: "not 1 to 128 printable characters"})
		return
	}
	claim := &task.Claim{Scope: origin.Actor + " " + r.Method + " " + r.URL.Path, Key: key, Hash: sha256.Sum256(body)}
	if !s.busy.enter(claim) {
		s.refuse(w, r, &api.Error{Code: api.CodeIdempotencyInFlight, Detail: "the first request with this key is not answered yet"})
		return
	}
	defer s.busy.leave(claim)
	status, kept, fits, err := s.Replay.Answered(r.Context(), claim)
	switch {
	case err != nil:
		s.refuse(w, r, err)
	case !fits:
		s.refuse(w, r, &api.Error{Code: api.CodeIdempotencyConflict, Detail: "the key was used with another body"})
	case kept != nil:
		s.replay(w, r, status, kept)
	default:
		origin.Claim = claim
		s.router.ServeHTTP(w, r)
		s.keep(w, r, claim)
	}
}

// keep keeps a refusal that would be the same again. What says "not you" or
// "not now" is asked anew.
func (s *Server) keep(w *recorder, r *http.Request, claim *task.Claim) {
	switch w.status {
	case http.StatusBadRequest, http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity, http.StatusPreconditionFailed:
	default:
		return
	}
	if err := s.Replay.KeepRefusal(context.WithoutCancel(r.Context()), claim, w.status, w.problem.Bytes()); err != nil {
		s.log.Error("answer not kept", "op", r.Method+" "+clip(r.URL.Path), "requestId", requestID(r.Context()), "err", err)
	}
}

// replay answers as the first time, if the caller may still ask for it.
func (s *Server) replay(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	creates, changes := r.URL.Path == "/v1/vms", strings.HasSuffix(r.URL.Path, ":setBalloon")
	action := auth.ActionPower
	switch {
	case creates:
		action = auth.ActionCreate
	case changes, isDevice(r.URL.Path):
		action = auth.ActionChange
	}
	vm, err := answeredVM(body, creates || changes)
	scope := vm.ID
	switch {
	case status != 0: // it was refused: there is nothing to learn
		action, scope, err = auth.ActionSelf, "", nil
	case creates:
		scope = ""
	}
	if err == nil {
		err = s.Auth.Authorize(r.Context(), action, scope)
	}
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	w.Header().Set("Idempotency-Replayed", "true")
	w.Header().Set("Content-Type", "application/json")
	switch {
	case status != 0:
		w.Header().Set("Content-Type", problemType)
		body = s.renamed(r, body)
	case creates:
		status = http.StatusCreated
		w.Header().Set("ETag", etag(vm))
		w.Header().Set("Location", "/v1/vms/"+vm.ID)
	case changes:
		status = http.StatusOK
		w.Header().Set("ETag", etag(vm))
	default:
		status = http.StatusAccepted
	}
	w.WriteHeader(status)
	// The peer is gone when this fails; there is nobody left to tell.
	_, _ = w.Write(append(body, '\n'))
}

// isDevice reports whether a path is that of a verb which changes a VM's devices.
func isDevice(path string) bool {
	_, verb, _ := strings.Cut(path, ":")
	switch api.Verb(verb) {
	case api.VerbAttachDisk, api.VerbDetachDisk, api.VerbAttachNIC, api.VerbDetachNIC:
		return true
	}
	return false
}

// renamed gives a kept problem the id of the request that it answers now, and
// that request the code for its audit row.
func (s *Server) renamed(r *http.Request, body []byte) []byte {
	var p api.Problem
	if err := json.Unmarshal(body, &p); err != nil {
		return body // larger than is kept: never, and no reason to fail
	}
	p.RequestID = requestID(r.Context())
	stateOf(r.Context()).code = p.Code
	again, err := json.Marshal(&p)
	if err != nil {
		return body
	}
	return again
}

// answeredVM is the VM that a kept answer is, or that its task is about; none for a refusal.
func answeredVM(body []byte, is bool) (api.VM, error) {
	var vm api.VM
	if is {
		return vm, json.Unmarshal(body, &vm)
	}
	var accepted api.TaskAccepted
	err := json.Unmarshal(body, &accepted)
	if accepted.Task.VM != nil {
		vm.ID = accepted.Task.VM.ID
	}
	return vm, err
}
