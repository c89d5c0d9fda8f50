// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"testing"

	"vmctl/daemon/api"
	"vmctl/daemon/launch/launchtest"
)

func (r *rig) setBalloon(ident string, bytes int64, header ...string) reply {
	r.t.Helper()
	return r.do("POST", "/v1/vms/"+ident+":setBalloon", fmt.Sprintf(`{"balloonBytes":%d}`, bytes), header...)
}

func (r *rig) balloon(ident string) api.Balloon {
	r.t.Helper()
	return want[api.Balloon](r, r.do("GET", "/v1/vms/"+ident+"/balloon", ""), 200)
}

// TestBalloon: its size is the VM's whether it runs or not, and a guest is told of it at
// its start, when it changes, by the next daemon, and after a save.
func TestBalloon(t *testing.T) {
	r := newRig(t)
	r.bootFile("forgets", launchtest.Forgets)
	before := r.create("web", "forgets")
	r.refused(r.do("GET", "/v1/vms/web/balloon", ""), 409, api.CodeStateConflict)
	got := r.setBalloon("web", 16<<20)
	vm := want[api.VM](r, got, 200)
	if vm.Spec.BalloonBytes != 16<<20 || vm.Generation != before.Generation+1 || got.header.Get("ETag") != fmt.Sprintf(`"%d"`, vm.Generation) {
		t.Errorf("%+v", vm)
	}
	wants := func(bytes int64) {
		t.Helper()
		b := r.balloon("web")
		if b.TargetBytes != bytes || b.ActualBytes != bytes || b.Memory == nil ||
			*b.Memory != (api.GuestMemory{TotalBytes: 64 << 20, FreeBytes: 64<<20 - bytes, MajorFaults: math.MaxInt64}) {
			t.Errorf("%+v, %+v, want %d", b, b.Memory, bytes)
		}
	}
	r.power("web", "powerOn")
	wants(16 << 20)
	want[api.VM](r, r.setBalloon("web", 32<<20), 200)
	wants(32 << 20)
	r.power("web", "pause")
	want[api.VM](r, r.patch("web", `{"spec":{"balloonBytes":8388608}}`), 200)
	wants(8 << 20)
	r.power("web", "resume")
	r.kill()
	r.start()
	r.until("the monitor hears of it again", func() bool { return r.balloon("web").TargetBytes == 8<<20 })
	wants(8 << 20)
	r.power("web", "save")
	want[api.VM](r, r.setBalloon("web", 0), 200)
	r.power("web", "powerOn")
	wants(0)
	r.power("web", "powerOff")
	if vm := r.get("web"); vm.Spec.BalloonBytes != 0 || vm.Generation != before.Generation+4 {
		t.Errorf("%+v", vm)
	}
}

// The same key is answered the same.
func TestBalloonOnce(t *testing.T) {
	r := newRig(t)
	r.create("web", "runs")
	key := []string{"Idempotency-Key", "k"}
	first := want[api.VM](r, r.setBalloon("web", 4096, key...), 200)
	want[api.VM](r, r.setBalloon("web", 8192), 200)
	again := r.setBalloon("web", 4096, key...)
	if vm := want[api.VM](r, again, 200); vm.Generation != first.Generation || again.header.Get("ETag") != fmt.Sprintf(`"%d"`, first.Generation) {
		t.Errorf("%+v", vm)
	}
	r.refused(r.setBalloon("web", 0, key...), 422, api.CodeIdempotencyConflict)
	if vm := r.get("web"); vm.Spec.BalloonBytes != 8192 {
		t.Errorf("%+v", vm.Spec)
	}
}

func TestBalloonRefused(t *testing.T) {
	r := newRig(t)
	r.create("web", "runs") // of 64 MiB
	for _, bytes := range []int64{-4096, 48<<20 + 4096, 64 << 20, 4095, 1 << 50, math.MaxInt64} {
		r.refused(r.setBalloon("web", bytes), 422, api.CodeMemoryInvalid)
		r.refused(r.patch("web", fmt.Sprintf(`{"spec":{"balloonBytes":%d}}`, bytes)), 422, api.CodeMemoryInvalid)
	}
	r.refused(r.do("POST", "/v1/vms/web:setBalloon", `{}`), 422, api.CodeInvalidRequest)
	r.refused(r.do("POST", "/v1/vms/web:setBalloon", `{"balloonBytes":0,"x":1}`), 422, api.CodeUnknownField)
	r.refused(r.setBalloon("none", 0), 404, api.CodeNotFound)
	r.refused(r.do("GET", "/v1/vms/none/balloon", ""), 404, api.CodeNotFound)
	want[api.VM](r, r.setBalloon("web", 48<<20), 200)
	// Less memory would leave the guest with too little.
	r.refused(r.patch("web", `{"spec":{"memoryBytes":33554432}}`), 422, api.CodeMemoryInvalid)
	r.power("web", "powerOn")
	r.refused(r.setBalloon("web", 64<<20), 422, api.CodeMemoryInvalid)
	r.create("late", "hangs")
	start := r.ask("late", "powerOn")
	r.until("it starts", func() bool { return r.get("late").Status.State == api.StateStarting })
	r.refused(r.setBalloon("late", 4096), 409, api.CodeStateConflict)
	r.refused(r.do("GET", "/v1/vms/late/balloon", ""), 409, api.CodeStateConflict)
	r.power("late", "powerOff")
	r.end(start)
	r.killMonitors()
	r.until("it is off", func() bool { return r.get("web").Status.State == api.StateOff })
}
