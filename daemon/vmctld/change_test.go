// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"vmctl/daemon/api"
	"vmctl/daemon/launch/launchtest"
)

const mergePatch = "application/merge-patch+json"

// patch changes a VM as it is now.
func (r *rig) patch(ident, body string) reply {
	r.t.Helper()
	return r.do("PATCH", "/v1/vms/"+ident, body, "If-Match", fmt.Sprintf(`"%d"`, r.get(ident).Generation), "Content-Type", mergePatch)
}

// TestChange: name and spec of a VM that is off become what the patch says, and nothing else.
func TestChange(t *testing.T) {
	r := newRig(t)
	r.disk("d")
	r.disk("e")
	before := r.withDisks("web", "runs", `{"path":"d","serial":"one"}`)
	r.create("db", "runs")
	got := r.patch("web", `{"name":"www","spec":{"vcpus":2,"memoryBytes":134217728,"boot":{"cmdline":"quiet"},
		"disks":[{"path":"d","limit":{"bytesPerSecond":1048576}},{"path":"e"}],"onCrash":"restart","vsock":{}}}`)
	after := want[api.VM](r, got, 200)
	wanted := before.Spec
	wanted.VCPUs, wanted.MemoryBytes, wanted.Boot.Cmdline, wanted.OnCrash = 2, 128<<20, "quiet", api.EndRestart
	wanted.Disks = []api.DiskSpec{{Path: "d", Limit: &api.RateLimit{BytesPerSecond: 1 << 20}}, {Path: "e"}}
	wanted.Vsock = &api.VsockSpec{CID: api.MinCID}
	if after.Name != "www" || after.ID != before.ID || after.Generation != before.Generation+1 || !reflect.DeepEqual(after.Spec, wanted) ||
		got.header.Get("ETag") != fmt.Sprintf(`"%d"`, after.Generation) || !after.UpdatedAt.After(before.UpdatedAt) {
		t.Errorf("got %+v", after)
	}
	r.refused(r.do("GET", "/v1/vms/web", ""), 404, api.CodeNotFound)
	r.power("www", "powerOn")
	r.power("www", "powerOff")
	// A null is a field that is left out.
	back := want[api.VM](r, r.patch("www", `{"spec":{"vcpus":null,"boot":{"cmdline":null},"onCrash":null,"vsock":null}}`), 200)
	wanted.VCPUs, wanted.Boot.Cmdline, wanted.OnCrash, wanted.Vsock = 1, "", api.EndStop, nil
	if !reflect.DeepEqual(back.Spec, wanted) {
		t.Errorf("got %+v", back.Spec)
	}
	list := want[api.VMList](r, r.do("GET", "/v1/vms", ""), 200)
	if len(list.Items) != 2 || list.Items[0].Name != "db" || !reflect.DeepEqual(list.Items[1], r.get("www")) {
		t.Errorf("the list has %+v", list.Items)
	}
	r.kill()
	r.start()
	if same := want[api.VM](r, r.patch("www", `{"spec":{"vcpus":1}}`), 200); same.Generation != back.Generation {
		t.Errorf("a change that is none: %+v", same)
	}
	if again := r.get("www"); !reflect.DeepEqual(again.Spec, back.Spec) || again.Generation != back.Generation {
		t.Errorf("after a restart of the daemon: %+v", again)
	}
}

// What cannot be changed is refused, and nothing is.
func TestChangeRefused(t *testing.T) {
	r := newRig(t)
	r.disk("d")
	r.bootFile("unlimited", launchtest.Unlimited)
	r.withDisks("web", "unlimited", `{"path":"d"}`)
	r.create("db", "runs")
	before := r.get("web")
	r.refused(r.do("PATCH", "/v1/vms/web", `{"spec":{"vcpus":2}}`), 428, api.CodePreconditionRequired)
	r.refused(r.do("PATCH", "/v1/vms/web", `{"spec":{"vcpus":2}}`, "If-Match", `"77"`), 412, api.CodePreconditionFailed)
	r.refused(r.do("PATCH", "/v1/vms/none", `{}`, "If-Match", `*`), 404, api.CodeNotFound)
	for _, tt := range []struct {
		body   string
		status int
		code   api.Code
	}{
		{`{"name":"db"}`, 409, api.CodeExists},
		{`{"name":"D B"}`, 422, api.CodeNameInvalid},
		{`{"generation":7}`, 422, api.CodeUnknownField},
		{`{"spec":{"cpus":7}}`, 422, api.CodeUnknownField},
		{`{"spec":{"vcpus":0}}`, 422, api.CodeVCPUsInvalid},
		{`{"spec":{"vcpus":"2"}}`, 422, api.CodeVCPUsInvalid},
		{`{"spec":{"memoryBytes":16777217}}`, 422, api.CodeMemoryInvalid},
		{`{"spec":{"disks":[{"path":"none"}]}}`, 422, api.CodeDiskMissing},
		{`{"spec":{"disks":[{"path":"../d"}]}}`, 422, api.CodeDiskInvalid},
		{`{"spec":{"disks":[{"path":"d","limit":{}}]}}`, 422, api.CodeDiskInvalid},
		{`{"spec":{"disks":[{"path":"d","limit":{"bytesPerSecond":1}}]}}`, 422, api.CodeDiskInvalid},
		{`{"spec":{"disks":[{"path":"d","limit":{"opsPerSecond":1,"burstMillis":60001}}]}}`, 422, api.CodeDiskInvalid},
		{`{"spec":{"disks":null,"boot":null}}`, 422, api.CodeBootFileInvalid},
		{`{"spec":7}`, 422, api.CodeInvalidRequest},
		{`[]`, 422, api.CodeInvalidRequest},
		{`{`, 400, api.CodeInvalidRequest},
	} {
		got := r.patch("web", tt.body)
		if got.status != tt.status || got.problem.Code != tt.code {
			t.Errorf("%s: %d %s: %s", tt.body, got.status, got.problem.Code, got.problem.Detail)
		}
	}
	r.power("web", "powerOn")
	for _, body := range []string{`{"name":"www"}`, `{"spec":{"vcpus":2}}`, `{"spec":{"disks":[]}}`, `{"spec":{"onReset":"stop"}}`} {
		r.refused(r.patch("web", body), 409, api.CodeStateConflict)
	}
	// The monitor refuses: the record stays.
	got := r.patch("web", `{"spec":{"disks":[{"path":"d","limit":{"opsPerSecond":100}}]}}`)
	if got.status < 400 {
		t.Errorf("got %d", got.status)
	}
	after := r.get("web")
	if !reflect.DeepEqual(after.Spec, before.Spec) || after.Generation != before.Generation || after.Name != "web" {
		t.Errorf("it became %+v", after)
	}
	// The next daemon lets the monitor hear the record.
	r.kill()
	r.log = &logBuffer{}
	r.start()
	r.until("the monitor refuses the next daemon, too", func() bool {
		return strings.Contains(r.log.String(), "devices may have other limits than the record")
	})
}

// TestChangeRunning: limits, and what follows the end of a run, change under a guest.
func TestChangeRunning(t *testing.T) {
	r := newRig(t)
	r.disk("d")
	r.withDisks("web", "runs", `{"path":"d"}`)
	r.power("web", "powerOn")
	run := r.get("web").Status.RunID
	said := func(what string) func() bool {
		return func() bool { return strings.Contains(r.log.String(), what) }
	}
	vm := want[api.VM](r, r.patch("web", `{"spec":{"onCrash":"restart","disks":[{"path":"d","limit":{"bytesPerSecond":1048576,"opsPerSecond":77,"burstMillis":50}}]}}`), 200)
	if l := vm.Spec.Disks[0].Limit; vm.Spec.OnCrash != api.EndRestart || l == nil || *l != (api.RateLimit{BytesPerSecond: 1 << 20, OpsPerSecond: 77, BurstMillis: 50}) {
		t.Errorf("%+v", vm.Spec)
	}
	r.until("the monitor has the limit", said("disk 0 has {Bytes:1048576 Ops:77 Burst:50}"))
	want[api.VM](r, r.patch("web", `{"spec":{"disks":[{"path":"d"}]}}`), 200)
	r.until("the monitor has none", said("disk 0 has {Bytes:0 Ops:0 Burst:0}"))
	r.power("web", "pause")
	want[api.VM](r, r.patch("web", `{"spec":{"disks":[{"path":"d","limit":{"opsPerSecond":5}}]}}`), 200)
	r.until("that of a paused VM too", said("disk 0 has {Bytes:0 Ops:5 Burst:0}"))
	if now := r.get("web").Status; now.RunID != run || now.State != api.StatePaused {
		t.Errorf("the run is %+v", now)
	}
	r.power("web", "powerOff")
}
