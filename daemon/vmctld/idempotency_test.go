// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"sync"
	"testing"

	"vmctl/daemon/api"
)

// TestIdempotency: the same key and body are answered the same, also by the
// next daemon; another body is refused.
func TestIdempotency(t *testing.T) {
	r := newRig(t)
	body := `{"name":"a","spec":{"boot":{"kernel":"runs"}}}`
	key := []string{"Idempotency-Key", "key-1"}
	first := r.do("POST", "/v1/vms", body, key...)
	vm := want[api.VM](r, first, 201)
	on := []string{"Idempotency-Key", "key-1"} // another path: another key
	task := want[api.TaskAccepted](r, r.do("POST", "/v1/vms/a:powerOn", "", on...), 202).Task
	r.end(task)
	for range 2 {
		again := r.do("POST", "/v1/vms", body, key...)
		if got := want[api.VM](r, again, 201); got.ID != vm.ID || !bytes.Equal(again.body, first.body) {
			t.Errorf("%s\nfirst %s", again.body, first.body)
		}
		if again.header.Get("ETag") != first.header.Get("ETag") || again.header.Get("Location") != first.header.Get("Location") {
			t.Errorf("headers %v, first %v", again.header, first.header)
		}
		if got := want[api.TaskAccepted](r, r.do("POST", "/v1/vms/a:powerOn", "", on...), 202).Task; got.ID != task.ID {
			t.Errorf("another task %s", got.ID)
		}
		r.refused(r.do("POST", "/v1/vms", `{"name":"b","spec":{"boot":{"kernel":"runs"}}}`, key...), 422, api.CodeIdempotencyConflict)
		r.kill()
		r.start()
	}
	// A refusal is an answer too.
	refusal := []string{"Idempotency-Key", "key-2"}
	r.refused(r.do("POST", "/v1/vms/a:powerOn", "", refusal...), 409, api.CodeStateConflict)
	r.power("a", "powerOff")
	r.refused(r.do("POST", "/v1/vms/a:powerOn", "", refusal...), 409, api.CodeStateConflict)
	r.refused(r.do("POST", "/v1/vms", body, "Idempotency-Key", "a b"), 422, api.CodeInvalidRequest)
}

// TestIdempotencyRace: many at once make one VM.
func TestIdempotencyRace(t *testing.T) {
	r := newRig(t)
	replies := make([]reply, 16)
	var wg sync.WaitGroup
	for i := range replies {
		wg.Add(1)
		go func() {
			defer wg.Done()
			replies[i] = r.do("POST", "/v1/vms", `{"name":"a","spec":{"boot":{"kernel":"runs"}}}`, "Idempotency-Key", "k")
		}()
	}
	wg.Wait()
	made := 0
	for _, got := range replies {
		switch {
		case got.status == 201:
			made++
		case got.status == 409 && got.problem.Code == api.CodeIdempotencyInFlight:
		default:
			t.Errorf("%d %s", got.status, got.body)
		}
	}
	if list := want[api.VMList](r, r.do("GET", "/v1/vms", ""), 200); made == 0 || len(list.Items) != 1 {
		t.Errorf("%d answers, %d VMs", made, len(list.Items))
	}
}
