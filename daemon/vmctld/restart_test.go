// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"vmctl/abi"
	"vmctl/daemon/api"
	"vmctl/daemon/kern/kerntest"
	"vmctl/daemon/vm"
)

func (r *rig) killMonitors() {
	r.t.Helper()
	pids := r.monitors()
	if len(pids) == 0 {
		r.t.Fatal("no monitor runs")
	}
	for _, p := range pids {
		if err := syscall.Kill(p, syscall.SIGKILL); err != nil {
			r.t.Fatal(err)
		}
	}
}

// TestKilledDaemon: it comes back, finds its VMs and controls them.
func TestKilledDaemon(t *testing.T) {
	r := newRig(t)
	a, b := r.create("a", "runs"), r.create("b", "stubborn")
	r.power("a", "powerOn")
	r.power("b", "powerOn")
	before := r.get("a")
	r.kill()
	if len(r.monitors()) != 2 {
		t.Fatal("monitors did not outlive the daemon")
	}
	r.start()
	after := r.get("a")
	if after.Status.State != api.StateRunning || after.Status.RunID != before.Status.RunID || !after.Status.Since.Equal(before.Status.Since) {
		t.Errorf("adopted: %+v, was %+v", after.Status, before.Status)
	}
	started := data[api.StartedData](r, r.watch("?since=0").lastStarted())
	if started.Adopted != 2 || started.Repaired != 0 {
		t.Errorf("host.started: %+v", started)
	}
	r.power("a", "reset") // needs the control connection
	r.power("a", "powerOff")
	r.power("b", "powerOff") // killed: it does not end by itself
	for _, id := range []string{a.ID, b.ID} {
		if s := r.get(id).Status; s.State != api.StateOff || s.LastStop.Reason != api.StopOperator {
			t.Errorf("%+v", s)
		}
	}
	if len(r.monitors()) != 0 || len(r.runs()) != 0 {
		t.Errorf("left: %v %v", r.monitors(), r.runs())
	}
}

// lastStarted skips to the second host.started.
func (w *watcher) lastStarted() api.Event {
	w.await(api.EventHostStarted, "")
	return w.await(api.EventHostStarted, "")
}

// TestKilledWhile: a task that ran when the daemon was killed ends truthfully.
func TestKilledWhile(t *testing.T) {
	r := newRig(t)
	slow, hang := r.create("slow", "slow"), r.create("hang", "hangs")
	tasks := []api.Task{r.ask("slow", "powerOn"), r.ask("hang", "powerOn")}
	r.until("both are on their way", func() bool { return len(r.monitors()) == 2 && len(r.runs()) == 2 })
	r.kill()
	r.start()
	for _, task := range tasks {
		if got := r.end(task); got.State != api.TaskFailed || got.Error.Code != api.CodeUnavailable {
			t.Errorf("%+v %+v", got, got.Error)
		}
	}
	for _, v := range []api.VM{slow, hang} {
		if s := r.get(v.ID).Status; s.State != api.StateOff || s.RunID != 0 {
			t.Errorf("%+v", s)
		}
	}
	if len(r.monitors()) != 0 || len(r.runs()) != 0 {
		t.Errorf("left: %v %v", r.monitors(), r.runs())
	}
	if open := want[api.TaskList](r, r.do("GET", "/v1/tasks?state=running", ""), 200); len(open.Items) != 0 {
		t.Errorf("still running: %+v", open.Items)
	}
}

// TestKilledInAPowerOff: the powerOff is finished by the next daemon.
func TestKilledInAPowerOff(t *testing.T) {
	r := newRig(t)
	r.create("a", "stubborn")
	r.power("a", "powerOn")
	off := r.ask("a", "powerOff")
	on := r.ask("a", "powerOn") // waits for it
	if on.QueuePosition != 1 {
		t.Errorf("position %d", on.QueuePosition)
	}
	r.refused(r.do("POST", "/v1/vms/a:powerOn", ""), 409, api.CodeStateConflict)
	r.kill()
	r.start()
	if got := r.end(off); got.State != api.TaskSucceeded {
		t.Errorf("%+v %+v", got, got.Error)
	}
	if got := r.end(on); got.State != api.TaskSucceeded {
		t.Errorf("%+v %+v", got, got.Error)
	}
	if s := r.get("a").Status.State; s != api.StateRunning {
		t.Errorf("state %s", s)
	}
}

// TestMonitorGoneMeanwhile: what happened while no daemon watched is told.
func TestMonitorGoneMeanwhile(t *testing.T) {
	r := newRig(t)
	v := r.create("a", "runs")
	r.power("a", "powerOn")
	run := r.get("a").Status.RunID
	r.kill()
	r.killMonitors()
	r.until("the run ends", func() bool { return len(r.runs()) == 0 })
	before := time.Now()
	r.start()
	r.until("off", func() bool { return r.get("a").Status.State == api.StateOff })
	if s := r.get("a").Status.LastStop; s == nil || s.Reason != api.StopMonitorGone || s.RunID != run || s.At.After(before) {
		t.Errorf("%+v, want the end before %v", s, before)
	}
	r.watch("?since=0").await(api.EventVMStopped, v.ID)
	r.power("a", "powerOn")
}

// TestHostRestarted: the kernel has forgotten everything.
func TestHostRestarted(t *testing.T) {
	r := newRig(t)
	r.needsFake()
	r.create("a", "runs")
	r.power("a", "powerOn")
	r.kill()
	r.killMonitors()
	r.until("the run ends", func() bool { return len(r.runs()) == 0 })
	r.kernel.Reload()
	r.start()
	r.until("off", func() bool { return r.get("a").Status.State == api.StateOff })
	if s := r.get("a").Status.LastStop; s == nil || s.Reason != api.StopDestroyed {
		t.Errorf("%+v", s)
	}
	r.power("a", "powerOn")
}

// TestNoticesLost: what happened while nothing was heard is found by a dump.
func TestNoticesLost(t *testing.T) {
	r := newRig(t)
	r.needsFake()
	r.create("a", "runs")
	r.power("a", "powerOn")
	r.kernel.Fail("vm-get", syscall.ENOBUFS)
	r.kernel.Cut()
	w := r.watch("?since=0")
	w.await(api.EventHostKernelLost, "")
	r.killMonitors()
	r.kernel.Fail("vm-get", 0)
	w.await(api.EventHostKernelBack, "")
	r.until("off", func() bool { return r.get("a").Status.State == api.StateOff })
	if s := r.get("a").Status.LastStop; s == nil || s.Reason != api.StopMonitorGone {
		t.Errorf("%+v", s)
	}
}

// TestStranger: a kernel VM that nobody here made is told of and left alone.
func TestStranger(t *testing.T) {
	r := newRig(t)
	r.needsFake()
	const alien = "11111111-2222-4333-8444-555555555555"
	r.made[alien] = true
	r.kernel.Add(alien, "alien", abi.VMStateRunning)
	r.kernel.Cut()
	e := r.watch("?since=0").await(api.EventVMUnknown, "")
	if d := data[api.UnknownData](r, e); d.Name != "alien" {
		t.Errorf("%+v", d)
	}
	if runs := r.runs(); len(runs) != 1 || runs[0].State != vm.RunRunning {
		t.Errorf("%+v", runs)
	}
}

// TestAbortedStart: powerOff ends a start that goes nowhere, at once.
func TestAbortedStart(t *testing.T) {
	r := newRig(t)
	for _, kernel := range []string{"hangs", "slow"} {
		r.create(kernel, kernel)
		on := r.ask(kernel, "powerOn")
		r.until("it begins", func() bool { return r.get(kernel).Status.State == api.StateStarting && len(r.monitors()) == 1 })
		began := time.Now()
		r.power(kernel, "powerOff")
		if took := time.Since(began); took > 8*time.Second {
			t.Errorf("%s: powerOff took %v", kernel, took)
		}
		if got := r.end(on); got.State != api.TaskFailed || got.Error.Code != api.CodeStateConflict {
			t.Errorf("%s: %+v %+v", kernel, got, got.Error)
		}
		if s := r.get(kernel).Status.State; s != api.StateOff {
			t.Errorf("%s: %s", kernel, s)
		}
	}
	if len(r.monitors()) != 0 || len(r.runs()) != 0 {
		t.Errorf("left: %v %v", r.monitors(), r.runs())
	}
}

// TestKilledAnywhere kills the daemon at arbitrary points of a busy life; after
// each start record, kernel and monitors agree.
func TestKilledAnywhere(t *testing.T) {
	r := newRig(t)
	for i := range 3 {
		r.create(fmt.Sprintf("v%d", i), "runs")
	}
	for round := range 6 {
		for i := range 3 {
			// Whatever is possible now; 409 is as good.
			r.do("POST", fmt.Sprintf("/v1/vms/v%d:power%s", i, []string{"On", "Off"}[(round+i)%2]), "")
		}
		time.Sleep(time.Duration(round*round) * 3 * time.Millisecond) // the arbitrary point
		r.kill()
		r.start()
	}
	r.until("all tasks end", func() bool {
		// In this order, or one that begins between the two is in neither.
		queued := want[api.TaskList](r, r.do("GET", "/v1/tasks?state=queued", ""), 200)
		open := want[api.TaskList](r, r.do("GET", "/v1/tasks?state=running", ""), 200)
		return len(open.Items)+len(queued.Items) == 0
	})
	running := 0
	for _, v := range want[api.VMList](r, r.do("GET", "/v1/vms", ""), 200).Items {
		switch v.Status.State {
		case api.StateRunning:
			running++
		case api.StateOff:
		default:
			t.Errorf("%s is %s", v.Name, v.Status.State)
		}
	}
	if len(r.runs()) != running {
		t.Errorf("%d run by the record, %d by the kernel", running, len(r.runs()))
	}
	told := make(map[uint64]bool)
	for _, e := range r.journal(api.EventVMStopped) {
		stop := data[api.LastStop](r, e)
		if told[stop.RunID] {
			t.Errorf("the end of run %d is told twice", stop.RunID)
		}
		told[stop.RunID] = true
	}
	// A monitor that was not one yet when the daemon died ends by itself.
	r.until("as many monitors", func() bool { return len(r.monitors()) == running })
}

// TestOneDaemon: a second one on the same state gives up and harms nothing.
func TestOneDaemon(t *testing.T) {
	r := newRig(t)
	r.create("a", "runs")
	r.power("a", "powerOn")
	first := r.proc
	r.launch()
	if st, err := r.proc.Wait(); err != nil || st.Success() {
		t.Errorf("a second daemon ended with %v %v", st, err)
	}
	r.proc = first
	r.power("a", "reset")
}

// held is a VM's descriptor of someone else on this host.
type held interface {
	Pause(holder abi.Pause, deadline uint64) (abi.Paused, error)
	Resume(holder abi.Pause) error
	Stop() error
	Destroy() error
	Close() error
}

// take opens the kernel VM of a VM, as another tool of the host's administrator
// would.
func (r *rig) take(ident string) held {
	r.t.Helper()
	var h held
	var err error
	id := r.get(ident).Status.RunID
	if c, fake := kernelAt(r.device).(*kerntest.Client); fake {
		h, err = c.OpenVM(id, abi.RightAll)
	} else {
		var dev *abi.Device
		if dev, err = abi.OpenDevice(r.device); err == nil {
			h, err = dev.Open(id, abi.RightAll)
			dev.Close()
		}
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { h.Close() })
	return h
}

// journal returns all events of a kind.
func (r *rig) journal(kind api.EventKind) []api.Event {
	r.t.Helper()
	var events []api.Event
	last := want[api.VMList](r, r.do("GET", "/v1/vms", ""), 200).EventSeq
	w := r.watch("?since=0")
	for seq := int64(0); seq < last; {
		raw, ok := w.next()
		if !ok {
			r.t.Fatal("the stream ended")
		}
		var e api.Event
		if err := json.Unmarshal(raw.data, &e); err != nil {
			r.t.Fatal(err)
		}
		if seq = e.Seq; e.Kind == kind {
			events = append(events, e)
		}
	}
	w.resp.Body.Close()
	return events
}

// TestEndsMeanwhile: VMs end in every way while no daemon runs. The next one
// tells of each once, in the order in which they ended, with the reason; also the
// one after it, which is killed before the first was done.
func TestEndsMeanwhile(t *testing.T) {
	r := newRig(t)
	names := []string{"stopped", "destroyed", "gone", "kept", "stays"}
	runs, ids := make(map[string]uint64), make(map[string]string)
	hands := make(map[string]held)
	pids := make(map[string]int)
	for _, name := range names {
		ids[name] = r.create(name, "runs").ID
		before := r.monitors()
		r.power(name, "powerOn")
		runs[name] = r.get(name).Status.RunID
		for _, pid := range r.monitors() {
			if !slices.Contains(before, pid) {
				pids[name] = pid
			}
		}
		if name == "stopped" || name == "destroyed" || name == "kept" {
			hands[name] = r.take(name)
		}
	}
	r.kill()
	// In another order than that of names and numbers.
	if err := hands["kept"].Stop(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pids["gone"], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.until("its run is gone", func() bool {
		return !slices.ContainsFunc(r.runs(), func(run vm.Run) bool { return run.ID == runs["gone"] })
	})
	if err := hands["destroyed"].Destroy(); err != nil {
		t.Fatal(err)
	}
	if err := hands["stopped"].Stop(); err != nil {
		t.Fatal(err)
	}
	hands["stopped"].Close()
	r.until("its run is gone", func() bool {
		return !slices.ContainsFunc(r.runs(), func(run vm.Run) bool { return run.ID == runs["stopped"] })
	})
	for i := range 4 {
		r.launch()
		time.Sleep(time.Duration(i) * 20 * time.Millisecond) // an arbitrary point
		r.kill()
	}
	r.start()
	r.until("all are off", func() bool {
		return !slices.ContainsFunc(names[:4], func(name string) bool { return r.get(name).Status.State != api.StateOff })
	})
	events := r.journal(api.EventVMStopped)
	wanted := []struct {
		name   string
		reason api.StopReason
	}{{"kept", api.StopOperator}, {"gone", api.StopMonitorGone}, {"destroyed", api.StopDestroyed}, {"stopped", api.StopOperator}}
	if len(events) != len(wanted) {
		for _, e := range events {
			t.Logf("%d: %s %+v", e.Seq, e.VM.Name, data[api.LastStop](r, e))
		}
		t.Fatalf("%d ends, want %d", len(events), len(wanted))
	}
	for i, w := range wanted {
		stop := data[api.LastStop](r, events[i])
		if events[i].VM.ID != ids[w.name] || stop.Reason != w.reason || stop.RunID != runs[w.name] || stop.Claimed {
			t.Errorf("end %d: %+v %+v, want %s %s", i, events[i].VM, stop, w.name, w.reason)
		}
		if kept := r.get(w.name).Status.LastStop; kept == nil || *kept != stop {
			t.Errorf("%s: kept %+v, told %+v", w.name, kept, stop)
		}
	}
	if s := r.get("stays").Status; s.State != api.StateRunning || s.RunID != runs["stays"] {
		t.Errorf("%+v", s)
	}
}

// TestForgottenEnds: the kernel's journal has the end no more, and its tomb has.
func TestForgottenEnds(t *testing.T) {
	r := newRig(t)
	r.needsFake()
	c := kernelAt(r.device).(*kerntest.Client)
	r.create("a", "runs")
	r.power("a", "powerOn")
	r.kill()
	r.killMonitors()
	r.until("its run is gone", func() bool { return len(r.runs()) == 0 })
	crowd, _, err := c.CreateVM(uuid.New(), "crowd")
	if err != nil {
		t.Fatal(err)
	}
	defer crowd.Close()
	for range 2100 { // two events each: more than the journal holds
		if _, err := crowd.Pause(abi.PauseOperator, abi.Forever); err != nil {
			t.Fatal(err)
		}
		if err := crowd.Resume(abi.PauseOperator); err != nil {
			t.Fatal(err)
		}
	}
	r.start()
	r.until("off", func() bool { return r.get("a").Status.State == api.StateOff })
	if s := r.get("a").Status.LastStop; s == nil || s.Reason != api.StopMonitorGone {
		t.Errorf("%+v", s)
	}
}

// TestPaused: who pauses a VM is seen, also by the next daemon; a paused VM can
// be powered off.
func TestPaused(t *testing.T) {
	r := newRig(t)
	v := r.create("a", "runs")
	r.power("a", "powerOn")
	h := r.take("a")
	w := r.watch("")
	pause := func(holder abi.Pause) {
		t.Helper()
		if _, err := h.Pause(holder, abi.Forever); err != nil {
			t.Fatal(err)
		}
	}
	state := func(want api.State) {
		t.Helper()
		if e := data[api.VMStatus](r, w.await(api.EventVMState, v.ID)); e.State != want {
			t.Fatalf("state %s, want %s", e.State, want)
		}
	}
	pause(abi.PauseOperator)
	state(api.StatePaused)
	pause(abi.PauseSnapshot)
	if err := h.Resume(abi.PauseOperator); err != nil {
		t.Fatal(err)
	}
	if err := h.Resume(abi.PauseSnapshot); err != nil {
		t.Fatal(err)
	}
	state(api.StateRunning)
	pause(abi.PauseSnapshot)
	state(api.StatePaused)
	if s := r.get("a").Status; !slices.Equal(s.Allowed, []api.Verb{api.VerbPowerOff, api.VerbResume, api.VerbSnapshot, api.VerbMerge, api.VerbAttachDisk, api.VerbAttachNIC, api.VerbConsoleToken}) {
		t.Errorf("allowed: %v", s.Allowed)
	}
	// The operator does not hold it.
	if task := r.end(r.ask("a", "resume")); task.State != api.TaskFailed || task.Error.Code != api.CodeStateConflict {
		t.Errorf("%+v %+v", task, task.Error)
	}
	r.refused(r.do("POST", "/v1/vms/a:reset", ""), 409, api.CodeStateConflict)
	r.kill()
	r.start()
	if s := r.get("a").Status.State; s != api.StatePaused {
		t.Fatalf("after a restart: %s", s)
	}
	r.kill()
	if err := h.Resume(abi.PauseSnapshot); err != nil {
		t.Fatal(err)
	}
	r.start()
	if s := r.get("a").Status.State; s != api.StateRunning {
		t.Fatalf("after a restart: %s", s)
	}
	pause(abi.PauseOperator)
	r.until("paused", func() bool { return r.get("a").Status.State == api.StatePaused })
	r.power("a", "powerOff")
	if s := r.get("a").Status; s.State != api.StateOff || s.LastStop.Reason != api.StopOperator {
		t.Errorf("%+v", s)
	}
}
