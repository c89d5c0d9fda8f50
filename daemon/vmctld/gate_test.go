// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"vmctl/daemon/api"
)

// TestPauseAndResume: the state is what the kernel says, before the task ends; what a
// paused VM cannot do is refused; a restart of the daemon changes nothing.
func TestPauseAndResume(t *testing.T) {
	r := newRig(t)
	vm := r.create("a", "runs")
	r.refused(r.do("POST", "/v1/vms/a:pause", ""), 409, api.CodeStateConflict)
	r.refused(r.do("POST", "/v1/vms/a:resume", ""), 409, api.CodeStateConflict)
	r.power("a", "powerOn")
	run := r.get("a").Status.RunID
	r.refused(r.do("POST", "/v1/vms/a:resume", ""), 409, api.CodeStateConflict)
	for range 3 {
		r.power("a", "pause")
		if got := r.get("a").Status; got.State != api.StatePaused || got.RunID != run {
			t.Fatalf("after pause: %+v", got)
		}
		if runs := r.runs(); len(runs) != 1 || runs[0].Paused == 0 {
			t.Fatalf("kernel has %+v", runs)
		}
		for _, verb := range []string{"pause", "reset", "shutdown", "powerOn"} {
			r.refused(r.do("POST", "/v1/vms/a:"+verb, ""), 409, api.CodeStateConflict)
		}
		r.power("a", "resume")
		if got := r.get("a").Status; got.State != api.StateRunning || got.RunID != run {
			t.Fatalf("after resume: %+v", got)
		}
	}
	r.power("a", "pause")
	r.kill()
	r.start()
	if got := r.get(vm.ID).Status; got.State != api.StatePaused || got.RunID != run {
		t.Fatalf("after a restart: %+v", got)
	}
	r.power("a", "resume")
	r.power("a", "pause")
	r.power("a", "powerOff") // needs no resume
	if got := r.get("a").Status; got.State != api.StateOff || got.LastStop == nil || got.LastStop.Reason != api.StopOperator {
		t.Errorf("after powerOff: %+v", got)
	}
	r.nothingRuns()
}

// TestShutdown: the guest decides, and its reason is told.
func TestShutdown(t *testing.T) {
	r := newRig(t)
	r.create("a", "runs")
	r.refused(r.do("POST", "/v1/vms/a:shutdown", ""), 409, api.CodeStateConflict)
	r.power("a", "powerOn")
	r.power("a", "shutdown")
	r.until("the guest has powered off", func() bool { return r.get("a").Status.State == api.StateOff })
	if stop := r.get("a").Status.LastStop; stop == nil || stop.Reason != api.StopPoweroff || !stop.Claimed {
		t.Errorf("%+v", stop)
	}
	r.nothingRuns()
}

// TestPauseFails: a task that the kernel refuses says so, and the VM goes on.
func TestPauseFails(t *testing.T) {
	r := newRig(t)
	r.needsFake()
	r.create("a", "runs")
	r.power("a", "powerOn")
	r.kernel.Fail("pause", 5)
	if task := r.end(r.ask("a", "pause")); task.State != api.TaskFailed || task.Error.Code != api.CodeKernelFailed {
		t.Errorf("%+v", task)
	}
	r.kernel.Fail("pause", 0)
	if got := r.get("a").Status.State; got != api.StateRunning {
		t.Errorf("state %s", got)
	}
	r.power("a", "pause")
	r.power("a", "powerOff")
}
