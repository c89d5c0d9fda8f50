// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"vmctl/daemon/api"
	"vmctl/daemon/launch/launchtest"
)

func (r *rig) savePath(vm api.VM) string { return filepath.Join(r.dir, "state", "saves", vm.ID) }

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// TestSave: a VM is written down and goes on from there, once; powerOff forgets it.
func TestSave(t *testing.T) {
	r := newRig(t)
	vm := r.create("web", "runs")
	r.refused(r.do("POST", "/v1/vms/web:save", ""), 409, api.CodeStateConflict)
	r.power("web", "powerOn")
	r.power("web", "save")
	off := r.get("web")
	if s := off.Status.Saved; off.Status.State != api.StateOff || s == nil || s.At.IsZero() || s.Bytes <= 0 ||
		off.Status.LastStop == nil || off.Status.LastStop.Reason != api.StopOperator {
		t.Fatalf("%+v", off.Status)
	}
	if !slices.Contains(off.Status.Allowed, api.VerbPowerOff) || !exists(r.savePath(vm)) {
		t.Errorf("allowed %v", off.Status.Allowed)
	}
	r.power("web", "powerOn")
	if on := r.get("web"); on.Status.State != api.StateRunning || on.Status.Saved != nil || exists(r.savePath(vm)) {
		t.Errorf("%+v", on.Status)
	}
	r.power("web", "save")
	r.power("web", "powerOff")
	if off := r.get("web"); off.Status.Saved != nil || slices.Contains(off.Status.Allowed, api.VerbPowerOff) || exists(r.savePath(vm)) {
		t.Errorf("%+v", off.Status)
	}
	r.power("web", "powerOn")
	r.power("web", "save")
	want[api.TaskAccepted](r, r.do("DELETE", "/v1/vms/web", ""), 202)
	r.until("the save is gone", func() bool { return !exists(r.savePath(vm)) })
	r.nothingRuns()
}

// A VM that cannot be saved goes on, and nothing is left of the try.
func TestSaveFails(t *testing.T) {
	r := newRig(t)
	r.bootFile("unsaved", launchtest.Unsaved)
	vm := r.create("web", "unsaved")
	r.power("web", "powerOn")
	task := r.end(r.ask("web", "save"))
	if task.State != api.TaskFailed || task.Error.Code != api.CodeSaveFailed {
		t.Errorf("%+v", task.Error)
	}
	r.until("it runs again", func() bool { return r.get("web").Status.State == api.StateRunning })
	if v := r.get("web"); v.Status.Saved != nil || exists(r.savePath(vm)) || exists(r.savePath(vm)+".new") {
		t.Errorf("%+v", v.Status)
	}
}

// What was saved and is damaged is refused, stays, and can be forgotten.
func TestSaveDamaged(t *testing.T) {
	r := newRig(t)
	vm := r.create("web", "runs")
	for name, bend := range map[string]func(path string) error{
		"altered": func(p string) error {
			return os.WriteFile(filepath.Join(p, "state"), []byte("something else, as long"), 0o600)
		},
		"gone": os.RemoveAll,
	} {
		r.power("web", "powerOn")
		r.power("web", "save")
		if err := bend(r.savePath(vm)); err != nil {
			t.Fatal(err)
		}
		if e := r.fails("web"); e.Code != api.CodeSaveInvalid {
			t.Errorf("%s: %+v", name, e)
		}
		if r.get("web").Status.Saved == nil {
			t.Errorf("%s: the save is forgotten", name)
		}
		r.power("web", "powerOff")
	}
	r.power("web", "powerOn")
}

// A daemon that is killed leaves saves as they were; a run that goes on without having
// been saved is paused by nobody.
func TestSaveAndRestart(t *testing.T) {
	r := newRig(t)
	vm := r.create("web", "runs")
	r.power("web", "powerOn")
	r.power("web", "save")
	r.kill()
	r.start()
	if v := r.get("web"); v.Status.Saved == nil || v.Status.State != api.StateOff {
		t.Fatalf("%+v", v.Status)
	}
	r.power("web", "powerOn")
	// What a daemon that was killed in the middle leaves.
	if err := os.MkdirAll(r.savePath(vm)+".new", 0o700); err != nil {
		t.Fatal(err)
	}
	r.kill()
	r.start()
	r.until("nothing is left of the save", func() bool { return !exists(r.savePath(vm) + ".new") })
	if v := r.get("web"); v.Status.State != api.StateRunning || v.Status.Saved != nil {
		t.Errorf("%+v", v.Status)
	}
}

// A save that takes its time ends with the daemon, and with a powerOff; nothing of it is
// left, and a VM that goes on obeys.
func TestSaveEndsEarly(t *testing.T) {
	r := newRig(t)
	r.bootFile("lingers", launchtest.Lingers)
	vm := r.create("web", "lingers")
	r.power("web", "powerOn")
	begin := func() api.Task {
		t.Helper()
		task := r.ask("web", "save")
		r.until("it writes", func() bool { return exists(filepath.Join(r.savePath(vm)+".new", "memory")) })
		r.until("it is paused", func() bool { return r.get("web").Status.State == api.StatePaused })
		r.refused(r.do("POST", "/v1/vms/web:save", ""), 409, api.CodeStateConflict)
		return task
	}
	ended := func(what string, task api.Task, code api.Code) {
		t.Helper()
		if task := r.end(task); task.State != api.TaskFailed || task.Error.Code != code {
			t.Errorf("%s: %+v %+v", what, task, task.Error)
		}
		r.until("nothing is left of the save", func() bool { return !exists(r.savePath(vm) + ".new") })
		if v := r.get("web"); v.Status.Saved != nil || exists(r.savePath(vm)) {
			t.Errorf("%s: %+v", what, v.Status)
		}
	}
	for what, down := range map[string]func(){"killed": r.kill, "stopped": r.stop} {
		task := begin()
		down()
		r.start()
		ended(what, task, map[string]api.Code{"killed": api.CodeUnavailable, "stopped": api.CodeSaveFailed}[what])
		r.until("it runs", func() bool { return r.get("web").Status.State == api.StateRunning })
		r.power("web", "reset") // there is a connection to the monitor
	}
	task := begin()
	r.power("web", "powerOff")
	ended("powered off", task, api.CodeStateConflict)
	r.nothingRuns()
}
