// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/uuid"

	"vmctl/daemon/api"
	"vmctl/daemon/launch/launchtest"
)

// withDisks makes a VM with disks, as JSON, that boots a file of the boot folder.
func (r *rig) withDisks(name, kernel, disks string) api.VM {
	r.t.Helper()
	v := want[api.VM](r, r.do("POST", "/v1/vms", fmt.Sprintf(`{"name":%q,"spec":{"memoryBytes":67108864,"boot":{"kernel":%q},"disks":[%s]}}`, name, kernel, disks)), 201)
	r.made[v.ID] = true
	return v
}

func (r *rig) disk(name string) string {
	r.t.Helper()
	path := filepath.Join(r.dir, "state", "disks", name)
	if err := sparse(path, 1<<20); err != nil {
		r.t.Fatal(err)
	}
	return path
}

// fails sends a powerOn and returns why its task failed.
func (r *rig) fails(ident string) api.TaskError {
	r.t.Helper()
	task := r.end(r.ask(ident, "powerOn"))
	if task.State != api.TaskFailed || task.Error == nil {
		r.t.Fatalf("%s: %+v", ident, task)
	}
	if got := r.get(ident); got.Status.State != api.StateOff {
		r.t.Errorf("%s is %s", ident, got.Status.State)
	}
	return *task.Error
}

// TestDiskClaims: one VM writes, or many read; who comes too late is told who has
// the disk, and has it at once when that one is off.
func TestDiskClaims(t *testing.T) {
	r := newRig(t)
	path := r.disk("d")
	vm := r.withDisks("writer", "runs", `{"path":"d","serial":"one"}`)
	if len(vm.Spec.Disks) != 1 || !reflect.DeepEqual(vm.Spec.Disks[0], api.DiskSpec{Path: "d", Serial: "one"}) || vm.Spec.Console != api.ConsoleSerial {
		t.Errorf("%+v", vm.Spec)
	}
	r.withDisks("second", "runs", fmt.Sprintf(`{"path":%q}`, path))
	r.withDisks("reader", "runs", `{"path":"d","readOnly":true}`)
	r.withDisks("reader-2", "runs", `{"path":"d","readOnly":true}`)

	r.power("writer", "powerOn")
	for _, name := range []string{"second", "reader"} {
		if e := r.fails(name); e.Code != api.CodeDiskInUse || !strings.Contains(e.Detail, `in use by the VM "writer"`) {
			t.Errorf("%s: %+v", name, e)
		}
	}
	r.power("writer", "powerOff")
	r.power("reader", "powerOn")
	r.power("reader-2", "powerOn")
	if e := r.fails("second"); e.Code != api.CodeDiskInUse || !strings.Contains(e.Detail, "reader") {
		t.Errorf("%+v", e)
	}
	r.power("reader", "powerOff")
	r.power("reader-2", "powerOff")
	for range 5 { // the last monitor's files may be open for a moment after its end
		r.power("second", "powerOn")
		r.power("second", "powerOff")
	}
	r.nothingRuns()
}

// TestDiskImages: an image comes with its backing files, which many VMs may read and
// none may write to meanwhile. Whether it is an image is found by the monitor.
func TestDiskImages(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{"base", "none"} {
		r.disk(name)
	}
	for _, name := range []string{"a", "b"} {
		if err := os.WriteFile(r.disk(name), []byte("QFI\xfb, and no whole sector"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	on := func(path string) string {
		return fmt.Sprintf(`{"path":%q,"readOnly":true,"format":"qcow2","backing":[{"path":"base"}]}`, path)
	}
	vm := r.withDisks("a", "runs", on("a"))
	if want := (api.DiskSpec{Path: "a", ReadOnly: true, Format: api.FormatQCOW2, Backing: []api.BackingSpec{{Path: "base"}}}); !reflect.DeepEqual(vm.Spec.Disks[0], want) {
		t.Errorf("%+v, want %+v", vm.Spec.Disks[0], want)
	}
	r.withDisks("b", "runs", on("b"))
	r.withDisks("none", "runs", on("none"))
	r.withDisks("writer", "runs", `{"path":"base"}`)
	r.power("a", "powerOn")
	r.power("b", "powerOn")
	if e := r.fails("none"); e.Code != api.CodeDiskFormatInvalid {
		t.Errorf("%+v", e)
	}
	r.power("a", "powerOff")
	r.power("b", "powerOff")
	r.power("writer", "powerOn")
	if e := r.fails("a"); e.Code != api.CodeDiskInUse || !strings.Contains(e.Detail, `in use by the VM "writer"`) {
		t.Errorf("%+v", e)
	}
	r.power("writer", "powerOff")
	r.nothingRuns()
}

// TestDiskOverlays: VMs have overlays of their own above one disk.
func TestDiskOverlays(t *testing.T) {
	r := newRig(t)
	r.disk("base")
	for _, name := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(r.dir, "state", "disks", name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		r.withDisks(name, "runs", fmt.Sprintf(`{"path":%q,"format":"overlay","backing":[{"path":"base"}]}`, name))
		r.power(name, "powerOn")
	}
	r.withDisks("c", "runs", `{"path":"a","format":"overlay","backing":[{"path":"base"}]}`)
	if e := r.fails("c"); e.Code != api.CodeDiskInUse || !strings.Contains(e.Detail, `in use by the VM "a"`) {
		t.Errorf("%+v", e)
	}
	r.power("a", "powerOff")
	r.power("b", "powerOff")
	r.nothingRuns()
}

// TestDiskDrains: a disk that a run which has ended still has is waited for.
func TestDiskDrains(t *testing.T) {
	r := newRig(t)
	file, err := os.OpenFile(r.disk("d"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	h, _, err := kernelAt(r.device).Create(uuid.NewString(), "other")
	if err != nil {
		t.Fatal(err)
	}
	if _, err = h.AttachDisk(file); err != nil {
		t.Fatal(err)
	}
	vm := r.withDisks("a", "runs", `{"path":"d"}`)
	if e := r.fails("a"); e.Code != api.CodeDiskInUse || !strings.Contains(e.Detail, `the VM "other"`) {
		t.Errorf("%+v", e)
	}
	// The file is open here, so the module still counts it; the fake does not.
	if err := h.Destroy(); err != nil {
		t.Fatal(err)
	}
	h.Close()
	task := r.ask(vm.ID, "powerOn")
	if r.kernel == nil {
		if got := want[api.Task](r, r.do("GET", "/v1/tasks/"+task.ID+"?wait=1s", ""), 200); got.Ended() {
			t.Errorf("it ended while the disk was held: %+v %+v", got, got.Error)
		}
	}
	file.Close()
	if got := r.end(task); got.State != api.TaskSucceeded {
		t.Errorf("%+v %+v", got, got.Error)
	}
	r.power("a", "powerOff")
}

// TestDiskGoes: a disk that went away after the VM was made.
func TestDiskGoes(t *testing.T) {
	r := newRig(t)
	path := r.disk("d")
	r.withDisks("a", "runs", `{"path":"d"}`)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	r.refused(r.do("POST", "/v1/vms/a:powerOn", ""), 422, api.CodeDiskMissing)
	r.nothingRuns()
}

// TestDeviceBroken: what a guest did to a device is told.
func TestDeviceBroken(t *testing.T) {
	r := newRig(t)
	r.disk("d")
	w := r.watch("?since=0")
	vm := r.withDisks("a", "breaks", `{"path":"d"}`)
	r.power("a", "powerOn")
	e := w.await(api.EventVMDeviceBroken, vm.ID)
	if got := data[api.BrokenData](r, e); got != (api.BrokenData{Device: "disk0", Detail: "the guest's ring is none"}) {
		t.Errorf("%+v", got)
	}
	r.power("a", "powerOff")
}

// TestBootsFromDisk: without a kernel the host's firmware boots the VM, if there is one.
func TestBootsFromDisk(t *testing.T) {
	bios := filepath.Join(t.TempDir(), "bios")
	r := newRig(t, "--firmware", bios)
	r.disk("d")
	const body = `{"name":"a","spec":{"memoryBytes":67108864,"disks":[{"path":"d"}]}}`
	r.refused(r.do("POST", "/v1/vms", body), 422, api.CodeBootFileMissing)
	if err := os.WriteFile(bios, []byte(launchtest.BIOS), 0o644); err != nil {
		t.Fatal(err)
	}
	vm := want[api.VM](r, r.do("POST", "/v1/vms", body), 201)
	r.made[vm.ID] = true
	if vm.Spec.Boot != (api.BootSpec{}) {
		t.Errorf("boots %+v", vm.Spec.Boot)
	}
	r.power("a", "powerOn")
	r.power("a", "powerOff")
	if err := os.Remove(bios); err != nil {
		t.Fatal(err)
	}
	r.refused(r.do("POST", "/v1/vms/a:powerOn", ""), 422, api.CodeBootFileMissing)
	r.nothingRuns()
}
