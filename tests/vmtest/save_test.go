// SPDX-License-Identifier: Apache-2.0

//go:build lab

package vmtest_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"vmctl/abi"
	"vmctl/monitor/ctl"
	"vmctl/monitor/spec"
	"vmctl/tests/vmtest"
)

// saveTo pauses the VM, until nothing is half done, and saves it to new files.
func saveTo(t *testing.T, v *vmtest.VMX) vmtest.Saved {
	t.Helper()
	for {
		p, err := v.VM.Pause(abi.PauseSnapshot, uint64(1<<63-1))
		if err != nil {
			t.Fatal(err)
		}
		if p.Unsettled == 0 {
			break
		}
	}
	dir := t.TempDir()
	var f [2]*os.File
	for i, name := range []string{"state", "memory"} {
		var err error
		if f[i], err = os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f[i].Close() })
	}
	if err := v.Client.Save(v.Context(), int(f[0].Fd()), int(f[1].Fd())); err != nil {
		t.Fatal(err)
	}
	return vmtest.Saved{State: f[0], Memory: f[1]}
}

// restore starts a machine from what was saved, in a process and a VM of its own.
func restore(t *testing.T, c vmtest.Config, f vmtest.Saved) (*vmtest.VMX, *vmtest.Screen) {
	t.Helper()
	c.Saved = &f
	return vmtest.Boot(t, c)
}

// A guest that works on its disk and its memory is saved, ended and
// restored, thrice. It goes on as if nothing had been, but for the time.
func TestSaveAndRestore(t *testing.T) {
	path, _ := newDisk(t, diskSize)
	c := vmtest.Config{
		VCPUs: 1, Initrd: withDrivers, Cmdline: "console=hvc0 panic=-1 quiet", Console: spec.Virtio,
		Disks: []vmtest.Disk{{Path: path, ID: "a"}},
	}
	v, s := boot(t, c)
	const forks = "dmesg | grep -c 'crng reseeded due to virtual machine fork'"
	if got := s.Run(forks); got != "0" {
		t.Fatalf("%s times it became another before all", got)
	}
	const clocks = "cut -d. -f1 /proc/uptime; date +%s"
	numbers := func(text string) (up, now int) {
		t.Helper()
		first, second, _ := strings.Cut(text, "\n")
		up, err := strconv.Atoi(first)
		now, err2 := strconv.Atoi(second)
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		return up, now
	}
	sum := s.Run(pattern)
	// One writes to the disk and reads it back, around all caches, one counts.
	s.Run(`(while :; do dd if=/tmp/p of=/dev/vda bs=64k oflag=direct 2>/dev/null; ` +
		`dd if=/dev/vda bs=1M count=1 iflag=direct 2>/dev/null | md5sum | cut -c1-32 | grep -v ` + sum + ` >>/tmp/bad; echo >>/tmp/good; sleep 0.1; done &)`)
	s.Run("(while :; do echo >>/tmp/count; sleep 0.01; done &)")
	for round := range 3 {
		up, now := numbers(s.Run(clocks))
		begin := time.Now()
		files := saveTo(t, v)
		t.Logf("round %d: saved in %v", round, time.Since(begin).Round(time.Millisecond))
		if err := v.VM.Stop(); err != nil {
			t.Fatal(err)
		}
		v.Wait()
		time.Sleep(2 * time.Second) // passes for the guest, too
		begin = time.Now()
		v, s = restore(t, c, files)
		s.Type("\n")
		t.Logf("round %d: restored in %v", round, time.Since(begin).Round(time.Millisecond))
		up2, now2 := numbers(s.Run(clocks))
		if passed := now2 - now; passed < 2 || passed > 300 || up2-up < passed-2 || up2-up > passed+2 {
			t.Errorf("round %d: uptime %d s and then %d s, date %d s later", round, up, up2, passed)
		}
		if host := int(time.Now().Unix()); now2 < host-5 || now2 > host+5 {
			t.Errorf("round %d: the guest's clock is %d s from the host's", round, now2-host)
		}
		// It knows that it may not be alone with what it took for random.
		if got := s.Run(forks); got != strconv.Itoa(round+1) {
			t.Errorf("round %d: %s times it became another", round, got)
		}
		before := s.Run("wc -l </tmp/good; wc -l </tmp/count")
		s.Run("sleep 3")
		if after := s.Run("wc -l </tmp/good; wc -l </tmp/count"); after == before {
			t.Errorf("round %d: nothing goes on: %q", round, after)
		}
		if bad := s.Run("cat /tmp/bad"); bad != "" {
			t.Fatalf("round %d: the disk had %q", round, bad)
		}
		if got := s.Run("md5sum </tmp/p | cut -c1-32; nproc"); got != sum+"\n1" {
			t.Fatalf("round %d: memory: %q", round, got)
		}
	}
	// A reset begins anew, without anything of what was saved.
	s.Type("reboot -f\n")
	vmtest.Event[*ctl.GuestReset](v)
	s.Expect(prompt)
	if got := s.Run(forks); got != "0" {
		t.Errorf("a reset made another of it %s times", got)
	}
	if got := s.Run("ls /tmp"); got != "" {
		t.Errorf("after a reset there is %q", got)
	}
}

// What it takes to restore does not grow with the memory: that is not read, but mapped.
// The two take turns, as what else this host does takes time from both.
func TestRestoreTime(t *testing.T) {
	machines := [2]vmtest.Config{{Memory: 256 << 20}, {Memory: 4 << 30}}
	for i := range machines {
		v, _ := boot(t, machines[i])
		files := saveTo(t, v)
		if err := v.VM.Destroy(); err != nil {
			t.Fatal(err)
		}
		machines[i].Saved = &files
	}
	best := [2]time.Duration{time.Hour, time.Hour}
	for range 8 {
		for i, c := range machines {
			v := vmtest.Start(t)
			began := time.Now()
			if err := v.Configure(c); err != nil {
				t.Fatal(err)
			}
			best[i] = min(best[i], time.Since(began))
			if err := v.VM.Destroy(); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("256 MiB: %v, 4 GiB: %v", best[0], best[1])
	if best[1] > best[0]*12/10 {
		t.Errorf("to restore 4 GiB takes %v, 256 MiB %v", best[1], best[0])
	}
}

// A save that cannot be is refused, and the guest goes on.
func TestSaveRefused(t *testing.T) {
	v, s := boot(t, vmtest.Config{})
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	full, err := os.OpenFile(file(t, "x", 1), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	is := func(what string, err error, want ctl.Code) {
		t.Helper()
		if !errors.Is(err, &ctl.Error{Code: want}) {
			t.Errorf("%s: got %v, want %v", what, err, want)
		}
	}
	is("running", v.Client.Save(v.Context(), int(full.Fd()), int(full.Fd())), ctl.StateConflict)
	if _, err := v.VM.Pause(abi.PauseSnapshot, uint64(1<<63-1)); err != nil {
		t.Fatal(err)
	}
	is("a device", v.Client.Save(v.Context(), int(null.Fd()), int(null.Fd())), ctl.SaveFailed)
	is("a file with something in it", v.Client.Save(v.Context(), int(full.Fd()), int(full.Fd())), ctl.SaveFailed)
	_, err = v.Client.Call(v.Context(), ctl.Save{}, int(full.Fd()))
	is("one file", err, ctl.DescriptorWrong)
	if err := v.VM.Resume(abi.PauseSnapshot); err != nil {
		t.Fatal(err)
	}
	if got := s.Run("echo still here"); got != "still here" {
		t.Errorf("got %q", got)
	}
	// What was saved is another machine's.
	files := saveTo(t, v)
	for what, c := range map[string]vmtest.Config{
		"more processors": {VCPUs: 2},
		"more memory":     {Memory: 512 << 20},
		"other console":   {Console: spec.Virtio},
	} {
		c.Saved = &files
		is(what, vmtest.Start(t).Configure(c), ctl.SaveInvalid)
	}
	if err := files.State.Truncate(1000); err != nil {
		t.Fatal(err)
	}
	is("cut", vmtest.Start(t).Configure(vmtest.Config{Saved: &files}), ctl.SaveInvalid)
}
