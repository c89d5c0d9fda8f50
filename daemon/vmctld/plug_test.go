// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmctl/daemon/api"
	"vmctl/daemon/launch/launchtest"
)

// plug asks for a device to come or to go.
func (r *rig) plug(ident, verb, body string) api.Task {
	r.t.Helper()
	return want[api.TaskAccepted](r, r.do("POST", "/v1/vms/"+ident+":"+verb, body), 202).Task
}

func (r *rig) plugs(ident, verb, body string) {
	r.t.Helper()
	if t := r.end(r.plug(ident, verb, body)); t.State != api.TaskSucceeded || t.Device == nil {
		r.t.Fatalf("%s %s: %+v %+v", verb, body, t, t.Error)
	}
}

func (r *rig) failsToPlug(ident, verb, body string) api.TaskError {
	r.t.Helper()
	t := r.end(r.plug(ident, verb, body))
	if t.State != api.TaskFailed || t.Error == nil {
		r.t.Fatalf("%s %s: %+v", verb, body, t)
	}
	return *t.Error
}

func disk(path string) string     { return fmt.Sprintf(`{"disk":{"path":%q}}`, path) }
func diskPath(path string) string { return fmt.Sprintf(`{"path":%q}`, path) }
func mac(n int) string            { return fmt.Sprintf("52:54:00:00:00:%02x", n) }
func card(n int) string           { return fmt.Sprintf(`{"nic":{"bridge":"vmctest","mac":%q}}`, mac(n)) }
func cardMAC(n int) string        { return fmt.Sprintf(`{"mac":%q}`, mac(n)) }

// devices are the disks and cards of a VM's spec: "d e 1 2".
func (r *rig) devices(ident string) string {
	r.t.Helper()
	var all []string
	vm := r.get(ident)
	for _, d := range vm.Spec.Disks {
		named, _ := d.Named()
		all = append(all, named.Path)
	}
	for _, n := range vm.Spec.NICs {
		all = append(all, strings.TrimLeft(n.MAC[len(n.MAC)-2:], "0"))
	}
	return strings.Join(all, " ")
}

// wantDevices compares the spec and what the kernel has of the VM's run.
func (r *rig) wantDevices(ident, devices string) {
	r.t.Helper()
	if got := r.devices(ident); got != devices {
		r.t.Errorf("the VM has %q, want %q", got, devices)
	}
	vm := r.get(ident)
	id, n := vm.Status.RunID, len(strings.Fields(devices))
	for _, d := range vm.Spec.Disks {
		_, snapshots := d.Named()
		n += snapshots
	}
	if id == 0 {
		return
	}
	r.until(fmt.Sprintf("the run has %d backends", n), func() bool {
		all, err := kernelAt(r.device).Attached(r.t.Context(), id)
		if err != nil {
			r.t.Fatal(err)
		}
		return len(all) == n
	})
}

func newPlugRig(t *testing.T) *rig {
	t.Helper()
	r := newRig(t, "--bridge", "vmctest")
	r.newBridge("vmctest")
	for _, d := range []string{"a", "b", "c", "d", "e"} {
		r.disk(d)
	}
	for name, text := range map[string]string{"ignores": launchtest.Ignores, "takes": launchtest.Takes, "drops": launchtest.Drops,
		"keeps": launchtest.Keeps, "clings": launchtest.Clings, "bound": launchtest.Bound, "full": launchtest.Full} {
		r.bootFile(name, text)
	}
	return r
}

// TestPlug: disks and cards come to a VM that runs, is paused or is off, and go. Each is
// itself, whatever went before it, for limits, links and snapshots; and those of a VM that
// was powered off and on begin in the order of the spec.
func TestPlug(t *testing.T) {
	r := newPlugRig(t)
	before := r.withDisks("web", "runs", `{"path":"a"},{"path":"b"}`)
	r.plugs("web", "attachDisk", `{"disk":{"path":"c","serial":"three","limit":{"opsPerSecond":7}}}`)
	r.plugs("web", "attachNic", card(1))
	vm := r.get("web")
	if d := vm.Spec.Disks[2]; d.Serial != "three" || d.Limit == nil || d.Limit.OpsPerSecond != 7 || vm.Generation != before.Generation+2 {
		t.Errorf("%+v", vm)
	}
	r.plugs("web", "detachDisk", diskPath("c"))
	r.plugs("web", "attachDisk", disk("c"))
	r.power("web", "powerOn")
	r.wantDevices("web", "a b c 1")
	r.plugs("web", "detachDisk", diskPath("b"))
	r.wantDevices("web", "a c 1")
	r.plugs("web", "attachDisk", disk("d")) // the number that b had
	r.plugs("web", "attachDisk", disk("e"))
	r.plugs("web", "attachDisk", disk("b"))
	r.wantDevices("web", "a c d e b 1")
	r.plugs("web", "attachNic", card(2))
	r.plugs("web", "attachNic", `{"nic":{"bridge":"vmctest"}}`)
	given := r.get("web").Spec.NICs[2].MAC
	r.plugs("web", "detachNic", fmt.Sprintf(`{"mac":%q}`, given))
	r.plugs("web", "detachNic", cardMAC(1))
	r.plugs("web", "attachNic", card(3))
	r.wantDevices("web", "a c d e b 2 3")
	// Numbers are 0, 2, 1, 3, 4.
	limits := func(bytes int) string {
		return fmt.Sprintf(`{"spec":{"disks":[{"path":"a"},{"path":"c","limit":{"bytesPerSecond":%d}},{"path":"d"},{"path":"e"},{"path":"b"}]}}`, bytes)
	}
	want[api.VM](r, r.patch("web", limits(4096)), 200)
	r.until("c has it", func() bool { return strings.Contains(r.log.String(), "disk 2 has {Bytes:4096 ") })
	want[api.VM](r, r.patch("web", fmt.Sprintf(`{"spec":{"nics":[{"bridge":"vmctest","mac":%q},{"bridge":"vmctest","mac":%q,"linkDown":true}]}}`, mac(2), mac(3))), 200)
	r.until("3 has it", func() bool {
		return strings.Contains(r.log.String(), "nic 0 has {NIC:0 Receive:{Bytes:0 Ops:0 Burst:0} Send:{Bytes:0 Ops:0 Burst:0} Down:true}")
	})
	for _, disk := range []int{2, 4} { // d and b
		for _, verb := range []string{"snapshot", "snapshot", "merge"} {
			if got := r.end(r.askDisk("web", verb, disk)); got.State != api.TaskSucceeded {
				t.Errorf("%s of %d: %+v", verb, disk, got.Error)
			}
		}
	}
	r.refused(r.do("POST", "/v1/vms/web:detachDisk", diskPath("d")), 422, api.CodeDiskInvalid) // has snapshots
	r.refused(r.do("POST", "/v1/vms/web:attachDisk", disk("d")), 422, api.CodeDiskInvalid)
	r.power("web", "pause")
	r.refused(r.do("POST", "/v1/vms/web:detachDisk", diskPath("c")), 409, api.CodeStateConflict) // the guest could not
	r.refused(r.do("POST", "/v1/vms/web:detachNic", cardMAC(2)), 409, api.CodeStateConflict)
	r.plugs("web", "attachNic", card(4))
	r.power("web", "resume")
	r.kill() // what it knows of numbers is recorded
	r.start()
	r.wantDevices("web", "a c d e b 2 3 4")
	r.plugs("web", "detachDisk", diskPath("c"))
	r.plugs("web", "detachNic", cardMAC(2))
	if got := r.end(r.askDisk("web", "snapshot", 3)); got.State != api.TaskSucceeded { // b
		t.Errorf("%+v", got.Error)
	}
	// What goes on from a save has the numbers that it had: 0, 1, 3, 4, and 0, 2.
	r.power("web", "save")
	r.kill()
	r.start()
	r.power("web", "powerOn")
	want[api.VM](r, r.patch("web", fmt.Sprintf(`{"spec":{"disks":[{"path":"a"},{"path":"d"},{"path":"e","limit":{"bytesPerSecond":8192}},{"path":"b"}],`+
		`"nics":[{"bridge":"vmctest","mac":%q},{"bridge":"vmctest","mac":%q,"sendLimit":{"opsPerSecond":9}}]}}`, mac(3), mac(4))), 200)
	r.until("e and 4 have it", func() bool {
		return strings.Contains(r.log.String(), "disk 3 has {Bytes:8192 ") && strings.Contains(r.log.String(), "nic 2 has {NIC:2 Receive:{Bytes:0 Ops:0 Burst:0} Send:{Bytes:0 Ops:9 ")
	})
	r.power("web", "powerOff")
	r.power("web", "powerOn")
	if got := r.end(r.askDisk("web", "snapshot", 2)); got.State != api.TaskSucceeded { // e, which is number 2 now
		t.Errorf("%+v", got.Error)
	}
	r.power("web", "save")
	r.refused(r.do("POST", "/v1/vms/web:attachDisk", disk("c")), 409, api.CodeStateConflict)
	r.power("web", "powerOn")
	r.plugs("web", "attachDisk", disk("c"))
	if got := r.devices("web"); got != "a d e b c 3 4" {
		t.Errorf("it has %s", got)
	}
	r.power("web", "powerOff")
	r.plugs("web", "detachNic", cardMAC(4))
	r.wantDevices("web", "a d e b c 3")
	r.nothingRuns()
}

// TestPlugWithSeed: the disk of the seed has a number, and no place in the spec.
func TestPlugWithSeed(t *testing.T) {
	r := newPlugRig(t)
	vm := want[api.VM](r, r.do("POST", "/v1/vms", `{"name":"web","spec":{"memoryBytes":67108864,"boot":{"kernel":"takes"},"disks":[{"path":"a"}]},"seed":{"userData":"x"}}`), 201)
	r.made[vm.ID] = true
	r.power("web", "powerOn")
	attach := r.plug("web", "attachDisk", disk("b"))
	r.until("the monitor has it", r.noAnswer)
	r.kill()
	r.start()
	if got := r.end(attach); got.State != api.TaskSucceeded {
		t.Errorf("%+v %+v", got, got.Error)
	}
	r.plugs("web", "attachDisk", disk("c"))
	if got := r.end(r.askDisk("web", "snapshot", 1)); got.State != api.TaskSucceeded {
		t.Errorf("%+v", got.Error)
	}
	r.plugs("web", "detachDisk", diskPath("a"))
	r.power("web", "save")
	r.power("web", "powerOn")
	r.plugs("web", "detachDisk", diskPath("c"))
	if got := r.devices("web"); got != "b" {
		t.Errorf("it has %s", got)
	}
	r.power("web", "powerOff")
	if r.get("web").Status.Saved != nil {
		t.Error("it is saved")
	}
}

// TestPlugRefused: what cannot come or go is told at once, and nothing is made.
func TestPlugRefused(t *testing.T) {
	r := newPlugRig(t)
	r.withDisks("web", "runs", `{"path":"a"}`)
	r.withDisks("bios", "runs", `{"path":"b"}`)
	r.power("bios", "powerOn")
	check := func() {
		t.Helper()
		for _, c := range []struct {
			verb, body string
			status     int
			code       api.Code
		}{
			{"attachDisk", disk("none"), 422, api.CodeDiskMissing},
			{"attachDisk", disk("../a"), 422, api.CodeDiskInvalid},
			{"attachDisk", disk("a"), 422, api.CodeDiskInvalid},
			{"attachDisk", disk(""), 422, api.CodeDiskInvalid},
			{"attachDisk", `{"disk":{"path":"c","own":true}}`, 422, api.CodeDiskInvalid},
			{"attachDisk", `{"disk":{"path":"c","format":"qcow2"}}`, 422, api.CodeDiskInvalid},
			{"attachDisk", `{"disk":{"path":"c","limit":{}}}`, 422, api.CodeDiskInvalid},
			{"attachDisk", `{"path":"c"}`, 422, api.CodeUnknownField},
			{"attachDisk", ``, 422, api.CodeInvalidRequest},
			{"detachDisk", diskPath("b"), 404, api.CodeNotFound},
			{"detachDisk", `{}`, 422, api.CodeInvalidRequest},
			{"detachDisk", diskPath(""), 422, api.CodeDiskInvalid},
			{"attachNic", `{"nic":{"bridge":"none"}}`, 422, api.CodeNetworkInvalid},
			{"attachNic", `{"nic":{"bridge":"vmctest","mac":"x"}}`, 422, api.CodeNetworkInvalid},
			{"attachNic", `{"nic":{"bridge":"vmctest","mac":"00:00:00:00:00:00"}}`, 422, api.CodeNetworkInvalid},
			{"detachNic", cardMAC(9), 404, api.CodeNotFound},
			{"detachNic", `{"mac":"52"}`, 422, api.CodeNetworkInvalid},
		} {
			got := r.do("POST", "/v1/vms/web:"+c.verb, c.body)
			if got.status != c.status && !(c.body == "" && got.status == 400) || got.problem.Code != c.code {
				t.Errorf("%s %s: %d %s: %s", c.verb, c.body, got.status, got.problem.Code, got.problem.Detail)
			}
			if len(got.problem.Errors) > 0 && strings.Contains(got.problem.Errors[0].Location, "spec") {
				t.Errorf("%s %s: it is said of %s", c.verb, c.body, got.problem.Errors[0].Location)
			}
		}
	}
	check()
	r.power("web", "powerOn")
	check()
	if e := r.failsToPlug("web", "attachDisk", disk("b")); e.Code != api.CodeDiskInUse {
		t.Errorf("%+v", e)
	}
	r.wantDevices("web", "a")
	r.plugs("web", "attachNic", card(1))
	r.refused(r.do("POST", "/v1/vms/web:attachNic", card(1)), 422, api.CodeNetworkInvalid)
	for n := 2; n <= api.MaxNICs; n++ {
		r.plugs("web", "attachNic", card(n))
	}
	r.refused(r.do("POST", "/v1/vms/web:attachNic", card(9)), 422, api.CodeNetworkInvalid)
	r.refused(r.do("POST", "/v1/vms/none:attachDisk", disk("c")), 404, api.CodeNotFound)
	r.wantDevices("web", "a 1 2 3 4 5 6 7 8")
	// The same again is answered the same.
	key := []string{"Idempotency-Key", "k"}
	first := want[api.TaskAccepted](r, r.do("POST", "/v1/vms/web:attachDisk", disk("c"), key...), 202).Task
	r.end(first)
	if again := want[api.TaskAccepted](r, r.do("POST", "/v1/vms/web:attachDisk", disk("c"), key...), 202).Task; again.ID != first.ID {
		t.Errorf("another task: %+v", again)
	}
}

// TestPlugFails: whatever step fails, the VM has what it had.
func TestPlugFails(t *testing.T) {
	r := newPlugRig(t)
	r.withDisks("web", "full", `{"path":"a"}`)
	r.power("web", "powerOn")
	for _, c := range [][2]string{{"attachDisk", disk("b")}, {"attachNic", card(1)}} {
		if e := r.failsToPlug("web", c[0], c[1]); e.Code != api.CodeLimitExceeded {
			t.Errorf("%s: %+v", c[0], e)
		}
		r.wantDevices("web", "a")
	}
	r.power("web", "save") // it is what it was
	r.power("web", "powerOn")
	r.power("web", "powerOff")
	want[api.VM](r, r.patch("web", `{"spec":{"boot":{"kernel":"bound"},"disks":[{"path":"a"},{"path":"b"}]}}`), 200)
	r.power("web", "powerOn")
	if e := r.failsToPlug("web", "detachDisk", diskPath("a")); e.Code != api.CodeMergeInvalid {
		t.Errorf("%+v", e)
	}
	r.wantDevices("web", "a b")
	if got := r.end(r.askDisk("web", "snapshot", 1)); got.State != api.TaskSucceeded { // none leaves
		t.Errorf("%+v", got.Error)
	}
	r.power("web", "powerOff")
	r.wantDevices("web", "a b")
}

func TestPlugFailsInTheKernel(t *testing.T) {
	r := newPlugRig(t)
	r.needsFake()
	r.withDisks("web", "runs", `{"path":"a"},{"path":"b"}`)
	r.power("web", "powerOn")
	r.kernel.Fail("attach", unix.ENOMEM)
	for _, c := range [][2]string{{"attachDisk", disk("c")}, {"attachNic", card(1)}} {
		if e := r.failsToPlug("web", c[0], c[1]); e.Code != api.CodeKernelFailed {
			t.Errorf("%s: %+v", c[0], e)
		}
	}
	r.kernel.Fail("attach", 0)
	r.wantDevices("web", "a b")
	r.kernel.Fail("detach", unix.ENOMEM)
	detach := r.plug("web", "detachDisk", diskPath("a"))
	r.until("the guest let go of it", func() bool { return strings.Contains(r.log.String(), "device not settled") })
	r.kernel.Fail("detach", 0)
	if got := r.end(detach); got.State != api.TaskSucceeded { // at the next try
		t.Errorf("%+v %+v", got, got.Error)
	}
	r.wantDevices("web", "b")
}

// TestKilledInAnAttachment: the next daemon finds out whether the monitor had taken it.
func TestKilledInAnAttachment(t *testing.T) {
	for kernel, state := range map[string]api.TaskState{"ignores": api.TaskFailed, "takes": api.TaskSucceeded} {
		for verb, c := range map[string]struct{ body, after string }{"attachDisk": {disk("b"), "a b 1"}, "attachNic": {card(2), "a 1 2"}} {
			t.Run(kernel+" "+verb, func(t *testing.T) {
				r := newPlugRig(t)
				vm := want[api.VM](r, r.do("POST", "/v1/vms", fmt.Sprintf(`{"name":"web","spec":{"memoryBytes":67108864,"boot":{"kernel":%q},"disks":[{"path":"a"}],"nics":[{"bridge":"vmctest","mac":%q}]}}`, kernel, mac(1))), 201)
				r.made[vm.ID] = true
				r.power("web", "powerOn")
				attach := r.plug("web", verb, c.body)
				id := r.get("web").Status.RunID
				r.until("the kernel has it", func() bool {
					all, err := kernelAt(r.device).Attached(t.Context(), id)
					return err == nil && len(all) == 3
				})
				r.until("the monitor has what it is asked", r.noAnswer)
				r.kill()
				r.start()
				got := r.end(attach)
				if got.State != state || state == api.TaskFailed && got.Error.Code != api.CodeUnavailable {
					t.Errorf("%+v %+v", got, got.Error)
				}
				if state == api.TaskFailed {
					r.wantDevices("web", "a 1")
					r.plugs("web", verb, c.body)
				}
				r.wantDevices("web", c.after)
				r.power("web", "powerOff")
				r.power("web", "powerOn")
				r.wantDevices("web", c.after)
			})
		}
	}
}

// TestStoppedInAnAttachment: it went with the run.
func TestStoppedInAnAttachment(t *testing.T) {
	for _, killed := range []bool{false, true} {
		t.Run(fmt.Sprint(killed), func(t *testing.T) {
			r := newPlugRig(t)
			r.withDisks("web", "takes", `{"path":"a"}`)
			r.power("web", "powerOn")
			attach := r.plug("web", "attachDisk", disk("b"))
			r.until("the kernel has it", func() bool { return r.claimed(2) })
			if killed {
				r.kill()
				r.killMonitors()
				r.start()
			} else {
				r.power("web", "powerOff")
			}
			if got := r.end(attach); got.State != api.TaskFailed {
				t.Errorf("%+v", got)
			}
			r.until("it is off", func() bool { return r.get("web").Status.State == api.StateOff })
			r.wantDevices("web", "a")
			r.power("web", "powerOn")
			r.wantDevices("web", "a")
			r.power("web", "powerOff")
			r.plugs("web", "attachDisk", disk("b"))
		})
	}
}

// TestKilledInADetachment: the next daemon asks the guest once more.
func TestKilledInADetachment(t *testing.T) {
	for _, kernel := range []string{"keeps", "drops"} {
		for verb, c := range map[string]struct{ body, after string }{"detachDisk": {diskPath("a"), "b 1 2"}, "detachNic": {cardMAC(1), "a b 2"}} {
			t.Run(kernel+" "+verb, func(t *testing.T) {
				r := newPlugRig(t)
				vm := want[api.VM](r, r.do("POST", "/v1/vms", fmt.Sprintf(`{"name":"web","spec":{"memoryBytes":67108864,"boot":{"kernel":%q},"disks":[{"path":"a"},{"path":"b"}],"nics":[{"bridge":"vmctest","mac":%q},{"bridge":"vmctest","mac":%q}]}}`, kernel, mac(1), mac(2))), 201)
				r.made[vm.ID] = true
				r.power("web", "powerOn")
				detach := r.plug("web", verb, c.body)
				r.until("the guest is asked", func() bool { return r.task(detach).Progress == 50 })
				r.refused(r.do("POST", "/v1/vms/web:"+verb, c.body), 409, api.CodeStateConflict)
				if verb == "detachDisk" {
					r.refused(r.do("POST", "/v1/vms/web/disks/1:snapshot", ""), 409, api.CodeStateConflict)
				}
				r.kill()
				r.start()
				if got := r.end(detach); got.State != api.TaskSucceeded {
					t.Errorf("%+v %+v", got, got.Error)
				}
				r.wantDevices("web", c.after)
				if got := r.end(r.askDisk("web", "snapshot", 0)); got.State != api.TaskSucceeded {
					t.Errorf("%+v", got.Error)
				}
				r.power("web", "powerOff")
				r.wantDevices("web", c.after)
			})
		}
	}
}

// TestClings: a guest that does not let go of a device keeps it, until it is reset or ends;
// the task does not wait for that.
func TestClings(t *testing.T) {
	r := newPlugRig(t)
	vm := r.withDisks("web", "clings", `{"path":"a"},{"path":"b"},{"path":"c"}`)
	r.power("web", "powerOn")
	again := r.withDisks("next", "clings", `{"path":"d"},{"path":"e"}`)
	r.power("next", "powerOn")
	late := r.plug("next", "detachDisk", diskPath("d"))
	r.plugs("web", "attachNic", card(1))
	r.plugs("web", "attachNic", card(2))
	detach := r.plug("web", "detachDisk", diskPath("b"))
	r.do("GET", "/v1/tasks/"+detach.ID+"?wait=20s", "") // it has 30 s
	if got := r.end(detach); got.State != api.TaskFailed || got.Error.Code != api.CodeDetachTimeout {
		t.Errorf("%+v %+v", got, got.Error)
	}
	r.wantDevices("web", "a b c 1 2")
	r.refused(r.do("POST", "/v1/vms/web/disks/2:snapshot", ""), 409, api.CodeStateConflict) // may be 1 soon
	if got := r.end(r.askDisk("web", "snapshot", 0)); got.State != api.TaskSucceeded {
		t.Errorf("%+v", got.Error)
	}
	if got := r.end(late); got.State != api.TaskFailed || got.Error.Code != api.CodeDetachTimeout {
		t.Errorf("%+v %+v", got, got.Error)
	}
	r.refused(r.do("POST", "/v1/vms/next:save", ""), 409, api.CodeStateConflict) // it may go
	late = r.plug("next", "detachDisk", diskPath("d"))
	r.power("next", "powerOff")
	if got := r.end(late); got.State != api.TaskFailed || r.devices(again.ID) != "e" {
		t.Errorf("%+v %+v, it has %s", got, got.Error, r.devices(again.ID))
	}
	// A change of the others leaves it alone.
	want[api.VM](r, r.patch("web", `{"spec":{"disks":[{"path":"a"},{"path":"b"},{"path":"c","limit":{"opsPerSecond":9}}]}}`), 200)
	r.until("c has it", func() bool { return strings.Contains(r.log.String(), "disk 2 has {Bytes:0 Ops:9 ") })
	r.kill()
	r.start()
	r.power("web", "reset")
	r.until("it is gone", func() bool { return r.devices("web") == "a c 1 2" })
	r.wantDevices("web", "a c 1 2")
	if n := r.get("web").Generation - vm.Generation; n != 5 {
		t.Errorf("%d changes", n)
	}
	detach = r.plug("web", "detachNic", cardMAC(1))
	r.until("the guest is asked", func() bool { return r.task(detach).Progress == 50 })
	r.power("web", "powerOff")
	if got := r.end(detach); got.State != api.TaskFailed || got.Error.Code != api.CodeStateConflict {
		t.Errorf("%+v %+v", got, got.Error)
	}
	r.wantDevices("web", "a c 2") // it went with the run
	r.power("web", "powerOn")
	detach = r.plug("web", "detachNic", cardMAC(2))
	r.until("the guest is asked", func() bool { return r.task(detach).Progress == 50 })
	r.killMonitors()
	if got := r.end(detach); got.State != api.TaskSucceeded {
		t.Errorf("%+v %+v", got, got.Error)
	}
	r.until("it is off", func() bool { return r.get("web").Status.State == api.StateOff })
	r.wantDevices("web", "a c")
	changes := r.journal(api.EventVMChanged)
	if !slices.ContainsFunc(changes, func(e api.Event) bool { return e.VM.ID == vm.ID }) {
		t.Error("no change was told")
	}
}
