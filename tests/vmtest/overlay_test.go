// SPDX-License-Identifier: Apache-2.0

//go:build lab

package vmtest_test

import (
	"errors"
	"os"
	"testing"
	"time"

	"vmctl/abi"
	"vmctl/monitor/ctl"
	"vmctl/monitor/spec"
	"vmctl/tests/vmtest"
)

// merge merges the uppermost file of the first disk into the one behind it, and returns
// the backends of those that are left.
func merge(t *testing.T, v *vmtest.VMX) []uint32 {
	t.Helper()
	step := func(do ctl.MergeStep) *ctl.DiskMergeReply {
		t.Helper()
		r, err := v.Client.DiskMerge(v.Context(), 0, do)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := step(ctl.MergeBegin)
	for deadline := time.Now().Add(vmtest.Timeout); r.State == ctl.Merging; r = step(ctl.MergeLook) {
		if time.Now().After(deadline) {
			t.Fatalf("the merge does not end: %+v", r)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if r.State != ctl.Merged || r.Done != r.Total || r.Total == 0 {
		t.Fatalf("merged: %+v", r)
	}
	if r = step(ctl.MergeFinish); r.State != ctl.NotMerging {
		t.Errorf("finished: %+v", r)
	}
	return r.Backends
}

// A guest that writes to its disk and reads it back goes on while the disk is switched to
// overlays, and while they are merged; what it had at a switch stays in the file below.
func TestSwitchAndMerge(t *testing.T) {
	path, _ := newDisk(t, diskSize)
	top, mid := file(t, "", 0), file(t, "", 0)
	v, s := boot(t, vmtest.Config{
		VCPUs: 2, Initrd: withDrivers, Cmdline: "console=hvc0 panic=-1 quiet", Console: spec.Virtio,
		Disks: []vmtest.Disk{{Path: path}},
	})
	sum := s.Run(pattern)
	s.Run(`(i=0; while ! [ -e /tmp/stop ]; do i=$((i+1)); dd if=/tmp/p of=/dev/vda bs=64k seek=$((i%16*20)) oflag=direct conv=fsync 2>/dev/null; ` +
		`dd if=/dev/vda bs=64k skip=$((i%16*20)) count=16 iflag=direct 2>/dev/null | md5sum | cut -c1-32 | grep -v ` + sum + ` >>/tmp/bad; echo >>/tmp/good; sleep 0.1; done &)`)
	goesOn := func(what string) {
		t.Helper()
		before := s.Run("wc -l </tmp/good")
		if after := s.Run("sleep 2; wc -l </tmp/good"); after == before {
			t.Fatalf("%s: the guest does not go on", what)
		}
		if bad := s.Run("cat /tmp/bad"); bad != "" {
			t.Fatalf("%s: the disk had %q", what, bad)
		}
	}
	refused := func(what string, err error, code ctl.Code) {
		t.Helper()
		if !errors.Is(err, &ctl.Error{Code: code}) {
			t.Errorf("%s: %v, want %v", what, err, code)
		}
	}
	_, err := v.Client.DiskMerge(v.Context(), 0, ctl.MergeBegin)
	refused("a merge of a raw disk", err, ctl.MergeInvalid)
	_, err = v.Client.DiskMerge(v.Context(), 1, ctl.MergeLook)
	refused("a disk that is not there", err, ctl.DiskInvalid)
	refused("a backend that is not there", v.Client.DiskSwitch(v.Context(), 0, 77), ctl.DiskInvalid)
	goesOn("before")
	for _, p := range []string{mid, top} {
		if err := v.Client.DiskSwitch(v.Context(), 0, v.AttachFile(p)); err != nil {
			t.Fatal(err)
		}
		below := path
		if p == top {
			below = mid
		}
		was, err := os.ReadFile(below)
		if err != nil {
			t.Fatal(err)
		}
		goesOn("above " + below)
		if now, err := os.ReadFile(below); err != nil || md5Of(now) != md5Of(was) {
			t.Errorf("what the disk was at the switch has changed: %v", err)
		}
	}
	if _, err := v.Client.DiskMerge(v.Context(), 0, ctl.MergeBegin); err != nil {
		t.Fatal(err)
	}
	if r, err := v.Client.DiskMerge(v.Context(), 0, ctl.MergeAbort); err != nil || len(r.Backends) != 3 || r.State != ctl.NotMerging {
		t.Errorf("aborted: %+v, %v", r, err)
	}
	goesOn("after a merge that was aborted")
	for left := 2; left > 0; left-- {
		if got := merge(t, v); len(got) != left {
			t.Errorf("backends %d are left, want %d of them", got, left)
		}
		goesOn("merged")
	}
	s.Run("touch /tmp/stop; sleep 5")
	all, program := private(t, v)
	t.Logf("after merges: %d KiB, of which %d KiB are the program", all, program)
	if all > privateBudget {
		t.Errorf("after merges the monitor holds %d KiB; at most %d", all, privateBudget)
	}
	want := s.Run(whole)
	s.Type("poweroff -f\n")
	end(t, v, abi.ReasonPoweroff)
	if b, err := os.ReadFile(path); err != nil || md5Of(b) != want {
		t.Errorf("the file is %s, the guest had %s: %v", md5Of(b), want, err)
	}
}

const whole = "sync; dd if=/dev/vda iflag=direct bs=64k 2>/dev/null | md5sum | cut -c1-32"

// A chain that is there at the start is merged just so.
func TestMergeOfEarlier(t *testing.T) {
	path, _ := newDisk(t, diskSize)
	top := file(t, "", 0)
	v, s := boot(t, vmtest.Config{Initrd: withDrivers, Disks: []vmtest.Disk{
		{Path: top, Format: spec.Overlay, Backing: []vmtest.File{{Path: path, Format: spec.Raw, Own: true}}},
	}})
	s.Run(pattern + "; dd if=/tmp/p of=/dev/vda bs=64k seek=77 conv=fsync 2>/dev/null")
	want := s.Run(whole)
	merge(t, v)
	if got := s.Run(whole); got != want {
		t.Errorf("merged it is %s, and was %s", got, want)
	}
	s.Type("poweroff -f\n")
	end(t, v, abi.ReasonPoweroff)
	if b, err := os.ReadFile(path); err != nil || md5Of(b) != want {
		t.Errorf("the file is %s, the guest had %s: %v", md5Of(b), want, err)
	}
}
