// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"testing"

	"vmctl/daemon/api"
)

func TestLife(t *testing.T) {
	r := newRig(t)
	vm := r.create("web-1", "runs")
	if vm.Status.State != api.StateOff || !slices.Contains(vm.Status.Allowed, api.VerbPowerOn) || vm.Spec.VCPUs != 1 || vm.Spec.OnReset != api.ResetRestart {
		t.Fatalf("new VM: %+v", vm)
	}
	r.power("web-1", "powerOn")
	on := r.get(vm.ID)
	if on.Status.State != api.StateRunning || on.Status.RunID == 0 {
		t.Fatalf("running VM: %+v", on.Status)
	}
	if runs := r.runs(); len(runs) != 1 || runs[0].UUID != vm.ID || runs[0].ID != on.Status.RunID || runs[0].Name != "web-1" {
		t.Fatalf("kernel has %+v", runs)
	}
	r.power("web-1", "reset")
	if again := r.get("web-1"); again.Status.RunID != on.Status.RunID || again.Status.State != api.StateRunning {
		t.Fatalf("after reset: %+v", again.Status)
	}
	r.power("web-1", "powerOff")
	off := r.get("web-1")
	if off.Status.State != api.StateOff || off.Status.RunID != 0 || off.Status.LastStop == nil ||
		off.Status.LastStop.Reason != api.StopOperator || off.Status.LastStop.Claimed || off.Status.LastStop.RunID != on.Status.RunID {
		t.Fatalf("after powerOff: %+v %+v", off.Status, off.Status.LastStop)
	}
	if runs := r.runs(); len(runs) != 0 {
		t.Fatalf("kernel still has %+v", runs)
	}
	if left := r.monitors(); len(left) != 0 {
		t.Fatalf("monitors still run: %v", left)
	}
	r.power("web-1", "powerOn") // the next run
	if next := r.get("web-1"); next.Status.RunID <= on.Status.RunID {
		t.Fatalf("run numbers: %d after %d", next.Status.RunID, on.Status.RunID)
	}
	r.power("web-1", "powerOff")
	if d := r.end(want[api.TaskAccepted](r, r.do("DELETE", "/v1/vms/web-1", ""), 202).Task); d.State != api.TaskSucceeded {
		t.Fatalf("delete: %+v", d)
	}
	r.refused(r.do("GET", "/v1/vms/"+vm.ID, ""), 404, api.CodeNotFound)
	r.create("web-1", "runs") // the name is free again
}
