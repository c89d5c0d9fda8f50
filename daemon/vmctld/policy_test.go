// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"vmctl/daemon/api"
)

// withPolicy makes a VM whose spec says more, as JSON.
func (r *rig) withPolicy(name, kernel, more string) api.VM {
	r.t.Helper()
	v := want[api.VM](r, r.do("POST", "/v1/vms", fmt.Sprintf(`{"name":%q,"spec":{"memoryBytes":67108864,"boot":{"kernel":%q},%s}}`, name, kernel, more)), 201)
	r.made[v.ID] = true
	return v
}

// planned waits until the VM is off and is to be started again, for the nth time.
func (r *rig) planned(ident string, n int) api.VMStatus {
	r.t.Helper()
	var st api.VMStatus
	r.until(fmt.Sprintf("start %d is planned", n), func() bool {
		st = r.get(ident).Status
		return st.State == api.StateOff && st.RestartAt != nil && st.Restarts == n
	})
	return st
}

// TestOnCrash: a guest that crashes is started again, later each time, until somebody
// wants it off; the plan outlives the daemon.
func TestOnCrash(t *testing.T) {
	r := newRig(t)
	r.withPolicy("a", "falters", `"onCrash":"restart"`)
	r.power("a", "powerOn")
	first := r.planned("a", 1)
	if first.LastStop == nil || first.LastStop.Reason != api.StopPanic {
		t.Errorf("%+v", first.LastStop)
	}
	second := r.planned("a", 2)
	if wait := second.RestartAt.Sub(second.Since); wait < time.Second || wait > 3*time.Second || second.LastStop.RunID <= first.LastStop.RunID {
		t.Errorf("second start after %v, of run %d after %d", wait, second.LastStop.RunID, first.LastStop.RunID)
	}
	r.kill()
	r.start()
	third := r.planned("a", 3)
	if !slices.Contains(third.Allowed, api.VerbPowerOff) {
		t.Errorf("allowed: %v", third.Allowed)
	}
	r.power("a", "powerOff")
	if st := r.get("a").Status; st.RestartAt != nil || st.Restarts != 0 || st.State != api.StateOff || slices.Contains(st.Allowed, api.VerbPowerOff) {
		t.Errorf("after powerOff: %+v", st)
	}
	actors := map[string]int{}
	for _, task := range want[api.TaskList](r, r.do("GET", "/v1/tasks", ""), 200).Items {
		if task.Kind == api.TaskPowerOn {
			actors[task.Actor]++
		}
	}
	if actors["vmctld"] != 2 && actors["vmctld"] != 3 {
		t.Errorf("starts by actor: %v", actors)
	}
	r.nothingRuns()
}

// TestOnCrashStartFails: a start by policy that fails is tried again.
func TestOnCrashStartFails(t *testing.T) {
	r := newRig(t)
	r.needsFake()
	r.withPolicy("a", "falters", `"onCrash":"restart"`)
	r.power("a", "powerOn")
	r.planned("a", 1)
	r.kernel.Fail("create", 5)
	r.planned("a", 2)
	r.kernel.Fail("create", 0)
	r.planned("a", 3)
	r.power("a", "powerOff")
}

// TestOnPoweroff: one policy is not the other's, and an operator's end has none.
func TestOnPoweroff(t *testing.T) {
	r := newRig(t)
	r.withPolicy("a", "tires", `"onPoweroff":"restart","onCrash":"stop"`)
	r.power("a", "powerOn")
	r.planned("a", 1)
	r.until("it ran again", func() bool {
		s := r.get("a").Status
		return s.Restarts == 1 && s.State == api.StateOff && s.LastStop.RunID > 1
	})
	r.end(r.ask("a", "powerOff"))

	r.withPolicy("b", "tires", `"onPoweroff":"stop","onCrash":"restart"`)
	r.ask("b", "powerOn")
	r.until("it is off", func() bool { s := r.get("b").Status; return s.State == api.StateOff && s.LastStop != nil })
	if st := r.get("b").Status; st.RestartAt != nil {
		t.Errorf("b: %+v", st)
	}
	r.withPolicy("c", "runs", `"onPoweroff":"restart","onCrash":"restart"`)
	r.power("c", "powerOn")
	r.power("c", "powerOff")
	if st := r.get("c").Status; st.RestartAt != nil || st.LastStop.Reason != api.StopOperator {
		t.Errorf("c: %+v", st)
	}
	r.refused(r.do("POST", "/v1/vms", `{"name":"d","spec":{"onCrash":"panic","boot":{"kernel":"runs"}}}`), 422, api.CodeInvalidRequest)
	r.refused(r.do("POST", "/v1/vms", `{"name":"d","spec":{"onPoweroff":"","boot":{"kernel":"runs"}}}`), 422, api.CodeInvalidRequest)
}
