// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmctl/daemon/api"
	"vmctl/daemon/launch/launchtest"
)

// overlayFiles are the files that snapshots of a VM's disks left.
func (r *rig) overlayFiles(vm api.VM) (names []string) {
	r.t.Helper()
	files, err := os.ReadDir(filepath.Join(r.dir, "state", "overlays", vm.ID))
	if err != nil && !os.IsNotExist(err) {
		r.t.Fatal(err)
	}
	for _, f := range files {
		names = append(names, vm.ID+"/"+f.Name())
	}
	return names
}

func (r *rig) askDisk(ident, verb string, disk int) api.Task {
	r.t.Helper()
	return want[api.TaskAccepted](r, r.do("POST", fmt.Sprintf("/v1/vms/%s/disks/%d:%s", ident, disk, verb), ""), 202).Task
}

// onDisk asks for a snapshot or merge of the first disk, and wants it to succeed.
func (r *rig) onDisk(ident, verb string) {
	r.t.Helper()
	if t := r.end(r.askDisk(ident, verb, 0)); t.State != api.TaskSucceeded || t.Disk == nil || *t.Disk != 0 {
		r.t.Fatalf("%s: %+v %+v", verb, t, t.Error)
	}
}

// failsOnDisk wants it to fail, and returns why.
func (r *rig) failsOnDisk(ident, verb string) api.TaskError {
	r.t.Helper()
	t := r.end(r.askDisk(ident, verb, 0))
	if t.State != api.TaskFailed || t.Error == nil {
		r.t.Fatalf("%s: %+v", verb, t)
	}
	return *t.Error
}

// wantChain compares the first disk of a VM, of whose files so many are its own and above
// the one that was named, and what is in the folder of overlays.
func (r *rig) wantChain(ident string, own int) api.VM {
	r.t.Helper()
	vm := r.get(ident)
	d := vm.Spec.Disks[0]
	chain := append([]api.BackingSpec{{Path: d.Path, Format: d.Format, Own: d.Own}}, d.Backing...)
	var owned []string
	for _, b := range chain {
		if b.Own {
			owned = append(owned, b.Path)
		}
	}
	if len(owned) != own || len(chain) != own+1 || chain[own].Path != "d" || chain[own].Own || own > 0 && d.Format != api.FormatOverlay {
		r.t.Errorf("the disk is %+v, want %d files of its own", d, own)
	}
	slices.Sort(owned)
	r.until("nothing else is in the folder of overlays", func() bool { return slices.Equal(r.overlayFiles(vm), owned) })
	return vm
}

// withDisk makes a VM with a disk "d".
func (r *rig) withDisk(name, kernel string) api.VM {
	r.t.Helper()
	r.disk("d")
	return r.withDisks(name, kernel, `{"path":"d","serial":"one"}`)
}

// TestSnapshots: disks of VMs that run, are paused and are off go on in overlays, which
// are merged and go with the VM.
func TestSnapshots(t *testing.T) {
	r := newRig(t)
	vm := r.withDisk("web", "runs")
	r.onDisk("web", "snapshot")
	r.wantChain("web", 1)
	r.refused(r.do("POST", "/v1/vms/web/disks/0:merge", ""), 409, api.CodeStateConflict)
	r.power("web", "powerOn")
	r.onDisk("web", "snapshot")
	r.power("web", "pause")
	r.onDisk("web", "snapshot")
	on := r.wantChain("web", 3)
	if on.Generation != vm.Generation+3 || on.Spec.Disks[0].Serial != "one" {
		t.Errorf("%+v", on)
	}
	r.onDisk("web", "merge")
	r.power("web", "resume")
	r.wantChain("web", 2)
	r.power("web", "powerOff")
	r.power("web", "powerOn") // of files that are there
	r.onDisk("web", "merge")
	r.wantChain("web", 1)
	r.refused(r.do("POST", "/v1/vms/web/disks/0:merge", ""), 422, api.CodeMergeInvalid)
	r.onDisk("web", "snapshot")
	// What is behind the VM's own files others may read, and none write to.
	r.withDisks("reader", "runs", `{"path":"d","readOnly":true}`)
	r.power("web", "save")
	r.refused(r.do("POST", "/v1/vms/web/disks/0:snapshot", ""), 409, api.CodeStateConflict)
	r.power("web", "powerOn")
	r.wantChain("web", 2)
	r.power("web", "powerOff")
	r.power("web", "powerOn")
	r.power("reader", "powerOn")
	r.power("reader", "powerOff")
	r.power("web", "powerOff")
	want[api.TaskAccepted](r, r.do("DELETE", "/v1/vms/web", ""), 202)
	r.until("its overlays are gone", func() bool { return !exists(filepath.Join(r.dir, "state", "overlays", vm.ID)) })
	if !exists(filepath.Join(r.dir, "state", "disks", "d")) {
		t.Error("the file that was named is gone")
	}
	changes := 0
	for _, e := range r.journal(api.EventVMChanged) {
		if e.VM.ID == vm.ID {
			changes++
		}
	}
	if changes != 6 {
		t.Errorf("%d changes were told", changes)
	}
	r.nothingRuns()
}

// TestSnapshotsRefused: what is no disk to snapshot or merge, and what no caller may say.
func TestSnapshotsRefused(t *testing.T) {
	r := newRig(t)
	r.withDisk("web", "runs")
	r.withDisks("reader", "runs", `{"path":"d","readOnly":true}`)
	r.refused(r.do("POST", "/v1/vms/web/disks/1:snapshot", ""), 404, api.CodeNotFound)
	r.refused(r.do("POST", "/v1/vms/web/disks/16:snapshot", ""), 422, api.CodeInvalidRequest)
	r.refused(r.do("POST", "/v1/vms/web/disks/-1:snapshot", ""), 422, api.CodeInvalidRequest)
	r.refused(r.do("POST", "/v1/vms/web/disks/d:snapshot", ""), 422, api.CodeInvalidRequest)
	r.refused(r.do("POST", "/v1/vms/none/disks/0:snapshot", ""), 404, api.CodeNotFound)
	r.refused(r.do("POST", "/v1/vms/reader/disks/0:snapshot", ""), 422, api.CodeDiskInvalid)
	r.power("web", "powerOn")
	r.refused(r.do("POST", "/v1/vms/web/disks/0:merge", ""), 422, api.CodeMergeInvalid)
	r.onDisk("web", "snapshot")
	r.onDisk("web", "snapshot")
	top := r.wantChain("web", 2).Spec.Disks[0].Path
	for _, disk := range []string{
		`{"path":"d","own":true}`,
		`{"path":"e","format":"overlay","backing":[{"path":"d","own":true}]}`,
		fmt.Sprintf(`{"path":%q,"own":true,"format":"overlay","backing":[{"path":"d"}]}`, top),
	} {
		r.refused(r.do("POST", "/v1/vms", fmt.Sprintf(`{"name":"x","spec":{"memoryBytes":67108864,"boot":{"kernel":"runs"},"disks":[%s]}}`, disk)), 422, api.CodeDiskInvalid)
	}
	for _, path := range []string{top, "../overlays/" + top, filepath.Join(r.dir, "state", "overlays", top)} {
		got := r.do("POST", "/v1/vms", fmt.Sprintf(`{"name":"x","spec":{"memoryBytes":67108864,"boot":{"kernel":"runs"},"disks":[{"path":%q,"format":"overlay","backing":[{"path":"d"}]}]}}`, path))
		if got.status != 422 {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
	}
	for range api.MaxBacking - 2 {
		r.onDisk("web", "snapshot")
	}
	r.refused(r.do("POST", "/v1/vms/web/disks/0:snapshot", ""), 429, api.CodeLimitExceeded)
	r.wantChain("web", api.MaxBacking)
}

// A change of the VM leaves the disk's snapshots alone, and makes none.
func TestChangeWithSnapshot(t *testing.T) {
	r := newRig(t)
	r.withDisk("web", "runs")
	want[api.VM](r, r.patch("web", `{"spec":{"disks":[{"path":"d","serial":"one","limit":{"opsPerSecond":100}}]}}`), 200)
	r.onDisk("web", "snapshot")
	d := r.wantChain("web", 1).Spec.Disks[0]
	if d.Limit == nil || d.Limit.OpsPerSecond != 100 {
		t.Errorf("the limit is %+v", d.Limit)
	}
	r.disk("e")
	disks := func(disks ...api.DiskSpec) string {
		text, err := json.Marshal(map[string]any{"spec": map[string]any{"disks": disks}})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	e := api.DiskSpec{Path: "e"}
	other, reads, shorter := d, d, d
	other.Path = "e"
	reads.ReadOnly = true
	shorter.Backing = []api.BackingSpec{{Path: "e"}}
	for _, disks := range []string{disks(), disks(e), disks(e, d), disks(other), disks(reads), disks(shorter),
		disks(d, d), disks(d, api.DiskSpec{Path: "e", Own: true, Format: api.FormatOverlay, Backing: []api.BackingSpec{{Path: "d"}}})} {
		r.refused(r.patch("web", disks), 422, api.CodeDiskInvalid)
	}
	d.Serial, d.Limit = "two", nil
	want[api.VM](r, r.patch("web", disks(d, e)), 200)
	after := want[api.VM](r, r.patch("web", `{"name":"www","spec":{"vcpus":2}}`), 200)
	if !reflect.DeepEqual(after.Spec.Disks, []api.DiskSpec{d, e}) {
		t.Errorf("%+v", after.Spec.Disks)
	}
	// As it was named it keeps them.
	named := want[api.VM](r, r.patch("www", `{"spec":{"disks":[{"path":"d","serial":"three"}]}}`), 200)
	d.Serial = "three"
	if !reflect.DeepEqual(named.Spec.Disks, []api.DiskSpec{d}) {
		t.Errorf("%+v", named.Spec.Disks)
	}
	r.power("www", "powerOn")
	r.onDisk("www", "snapshot")
	r.onDisk("www", "merge")
	r.wantChain("www", 1)
}

// An overlay that a caller named becomes one when the VM runs: before there is nothing to
// keep.
func TestSnapshotOfEmptyOverlay(t *testing.T) {
	r := newRig(t)
	r.disk("base")
	if err := os.WriteFile(filepath.Join(r.dir, "state", "disks", "d"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	vm := r.withDisks("web", "runs", `{"path":"d","format":"overlay","backing":[{"path":"base"}]}`)
	if e := r.failsOnDisk("web", "snapshot"); e.Code != api.CodeDiskInvalid || !strings.Contains(e.Detail, "power it on") {
		t.Errorf("%+v", e)
	}
	if got := r.get("web"); len(got.Spec.Disks[0].Backing) != 1 || len(r.overlayFiles(vm)) > 0 {
		t.Errorf("%+v", got.Spec)
	}
	r.disk("d")
	r.onDisk("web", "snapshot")
	if got := r.get("web").Spec.Disks[0]; len(got.Backing) != 2 || got.Backing[0].Format != api.FormatOverlay || got.Backing[0].Own {
		t.Errorf("%+v", got)
	}
	r.power("web", "powerOn")
}

// TestSnapshotFails: whatever step fails, the disk is what it was, and nothing is left.
func TestSnapshotFails(t *testing.T) {
	r := newRig(t)
	r.bootFile("unswitched", launchtest.Unswitched)
	r.withDisk("web", "unswitched")
	r.power("web", "powerOn")
	if e := r.failsOnDisk("web", "snapshot"); e.Code != api.CodeMonitorFailed || !strings.Contains(e.Detail, "no space left") {
		t.Errorf("%+v", e)
	}
	vm := r.wantChain("web", 0)
	if vm.Spec.Disks[0].Format != "" || vm.Spec.Disks[0].Serial != "one" || vm.Spec.Disks[0].Backing != nil {
		t.Errorf("%+v", vm.Spec.Disks[0])
	}
	folder := filepath.Join(r.dir, "state", "overlays")
	if err := os.RemoveAll(filepath.Join(folder, vm.ID)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, vm.ID), nil, 0o600); err != nil { // no folder can be
		t.Fatal(err)
	}
	if e := r.failsOnDisk("web", "snapshot"); e.Code != api.CodeSnapshotFailed {
		t.Errorf("%+v", e)
	}
	if err := os.Remove(filepath.Join(folder, vm.ID)); err != nil {
		t.Fatal(err)
	}
	r.power("web", "powerOff")
	r.until("what was left is cleared away", func() bool { return r.end(r.askDisk("web", "snapshot", 0)).State == api.TaskSucceeded })
	r.wantChain("web", 1)
}

func TestSnapshotFailsInTheKernel(t *testing.T) {
	r := newRig(t)
	r.needsFake()
	r.withDisk("web", "runs")
	r.power("web", "powerOn")
	r.kernel.Fail("attach", unix.ENOMEM)
	if e := r.failsOnDisk("web", "snapshot"); e.Code != api.CodeKernelFailed {
		t.Errorf("%+v", e)
	}
	r.kernel.Fail("attach", 0)
	r.wantChain("web", 0)
	r.onDisk("web", "snapshot")
	r.onDisk("web", "snapshot")
	r.kernel.Fail("detach", unix.ENOMEM)
	if e := r.failsOnDisk("web", "merge"); e.Code != api.CodeKernelFailed {
		t.Errorf("%+v", e)
	}
	// It is merged, and the next one waits until that is cleared away: by another daemon,
	// a later try, or the end of the run.
	if e := r.failsOnDisk("web", "snapshot"); e.Code != api.CodeUnavailable {
		t.Errorf("%+v", e)
	}
	r.kernel.Fail("detach", 0)
	r.power("web", "powerOff")
	r.wantChain("web", 1)
}

// TestMergeFails: a merge that the monitor cannot do, or that a powerOff ends.
func TestMergeFails(t *testing.T) {
	r := newRig(t)
	r.bootFile("unmerged", launchtest.Unmerged)
	r.bootFile("stalls", launchtest.Stalls)
	r.withDisk("web", "unmerged")
	r.power("web", "powerOn")
	r.onDisk("web", "snapshot")
	r.onDisk("web", "snapshot")
	for range 2 { // it was ended, and can be tried again
		if e := r.failsOnDisk("web", "merge"); e.Code != api.CodeMergeFailed || !strings.Contains(e.Detail, "no space left") {
			t.Errorf("%+v", e)
		}
	}
	r.wantChain("web", 2)
	r.power("web", "powerOff")
	r.bootFile("unmerged", launchtest.Stalls)
	r.power("web", "powerOn")
	merge := r.askDisk("web", "merge", 0)
	r.refused(r.do("POST", "/v1/vms/web/disks/0:merge", ""), 409, api.CodeStateConflict)
	r.until("it gets on", func() bool { return r.task(merge).State == api.TaskRunning })
	r.power("web", "powerOff")
	if got := r.end(merge); got.State != api.TaskFailed || got.Error.Code != api.CodeStateConflict {
		t.Errorf("%+v %+v", got, got.Error)
	}
	r.wantChain("web", 2)
	r.nothingRuns()
}

func (r *rig) task(t api.Task) api.Task {
	r.t.Helper()
	return want[api.Task](r, r.do("GET", "/v1/tasks/"+t.ID, ""), 200)
}

// TestKilledInASnapshot: the next daemon finds out whether the monitor had switched.
func TestKilledInASnapshot(t *testing.T) {
	for kernel, c := range map[string]struct {
		text  string
		state api.TaskState
		own   int
	}{
		"before": {launchtest.Holds, api.TaskFailed, 0},
		"after":  {launchtest.Switches, api.TaskSucceeded, 1},
	} {
		t.Run(kernel, func(t *testing.T) {
			r := newRig(t)
			r.bootFile("web", c.text)
			r.withDisk("web", "web")
			r.power("web", "powerOn")
			snapshot := r.askDisk("web", "snapshot", 0)
			r.until("the monitor is asked", func() bool { return r.task(snapshot).Progress == 50 })
			r.until("the disk is attached", func() bool { return r.claimed(2) })
			r.until("the monitor has what it is asked", r.noAnswer)
			r.kill()
			r.start()
			if got := r.end(snapshot); got.State != c.state || c.own == 0 && got.Error.Code != api.CodeUnavailable {
				t.Errorf("%+v %+v", got, got.Error)
			}
			r.wantChain("web", c.own)
			if !r.claimed(1 + c.own) {
				t.Errorf("not %d files are attached", 1+c.own)
			}
			r.onDisk("web", "snapshot")
			r.power("web", "powerOff")
			r.power("web", "powerOn")
			r.wantChain("web", c.own+1)
		})
	}
}

// noAnswer reports whether a monitor was asked what it does not answer.
func (r *rig) noAnswer() bool { return strings.Contains(r.log.String(), launchtest.NoAnswer) }

// claimed reports whether the runs have so many disks.
func (r *rig) claimed(n int) bool {
	r.t.Helper()
	claims, err := kernelAt(r.device).Claims(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	count := 0
	for _, run := range r.runs() {
		for _, c := range claims {
			if c.Run == run.ID {
				count++
			}
		}
	}
	return count == n
}

// A monitor that had not answered when the run ended: the disk is what was recorded, with
// an overlay that is empty or not.
func TestStoppedInASnapshot(t *testing.T) {
	r := newRig(t)
	r.bootFile("web", launchtest.Holds)
	r.withDisk("web", "web")
	r.power("web", "powerOn")
	snapshot := r.askDisk("web", "snapshot", 0)
	r.until("the monitor is asked", func() bool { return r.task(snapshot).Progress == 50 })
	r.killMonitors()
	if got := r.end(snapshot); got.State != api.TaskSucceeded && got.State != api.TaskFailed {
		t.Errorf("%+v", got)
	}
	r.until("it is off", func() bool { return r.get("web").Status.State == api.StateOff })
	r.wantChain("web", 1)
	r.power("web", "powerOn")
	r.kill()
	r.start()
	r.wantChain("web", 1)
}

// TestKilledInAMerge: the next daemon goes on with it, or with what is left of it to do.
func TestKilledInAMerge(t *testing.T) {
	for kernel, text := range map[string]string{"merging": launchtest.Stalls, "finishing": launchtest.Unfinished} {
		t.Run(kernel, func(t *testing.T) {
			r := newRig(t)
			r.bootFile("web", text)
			r.withDisk("web", "web")
			r.power("web", "powerOn")
			r.onDisk("web", "snapshot")
			r.onDisk("web", "snapshot")
			merge := r.askDisk("web", "merge", 0)
			if kernel == "merging" {
				r.until("it merges", func() bool { return r.task(merge).State == api.TaskRunning })
				r.stop()
			} else {
				r.until("it is recorded", func() bool { return len(r.get("web").Spec.Disks[0].Backing) == 1 })
				r.kill()
			}
			r.start()
			if got := r.end(merge); got.State != api.TaskSucceeded {
				t.Errorf("%+v %+v", got, got.Error)
			}
			r.wantChain("web", 1)
			if !r.claimed(2) {
				t.Error("not 2 files are attached")
			}
			r.power("web", "powerOff")
			r.power("web", "powerOn")
		})
	}
}

// A merge that was recorded when the run ended is done; what it was merged from goes.
func TestStoppedInAMerge(t *testing.T) {
	for kernel, c := range map[string]struct {
		text string
		own  int
	}{"merging": {launchtest.Stalls, 2}, "finishing": {launchtest.Unfinished, 1}} {
		for _, killed := range []bool{false, true} {
			t.Run(fmt.Sprint(kernel, killed), func(t *testing.T) {
				r := newRig(t)
				r.bootFile("web", c.text)
				r.withDisk("web", "web")
				r.power("web", "powerOn")
				r.onDisk("web", "snapshot")
				r.onDisk("web", "snapshot")
				merge := r.askDisk("web", "merge", 0)
				r.until("it merges", func() bool {
					return r.task(merge).State == api.TaskRunning && len(r.get("web").Spec.Disks[0].Backing) == c.own
				})
				if killed {
					r.kill()
					r.killMonitors()
					r.start()
				} else {
					r.killMonitors()
				}
				state := api.TaskFailed
				if c.own == 1 {
					state = api.TaskSucceeded
				}
				// A daemon may be back before the kernel has seen the monitor's end: then
				// it finds one that does not answer.
				got := r.end(merge)
				unanswered := c.own == 1 && got.Error != nil && got.Error.Code == api.CodeMonitorFailed
				if got.State != state && killed && !unanswered {
					t.Errorf("%+v %+v", got, got.Error)
				}
				r.until("it is off", func() bool { return r.get("web").Status.State == api.StateOff })
				r.wantChain("web", c.own)
				r.power("web", "powerOn")
			})
		}
	}
}
