// SPDX-License-Identifier: Apache-2.0

//go:build lab

package vmtest_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"vmctl/tests/vmtest"
)

func proc(t *testing.T, v *vmtest.VMX, name string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", v.Process.Pid, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A monitor with a running guest, seen from outside: every thread of it.
func testJail(t *testing.T, v *vmtest.VMX) {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", v.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		status := proc(t, v, "task/"+task.Name()+"/status")
		for _, want := range []string{
			"CapInh:\t0000000000000000\n", "CapPrm:\t0000000000000000\n", "CapEff:\t0000000000000000\n",
			"CapAmb:\t0000000000000000\n", "NoNewPrivs:\t1\n", "Seccomp:\t2\n",
		} {
			if !strings.Contains(status, want) {
				t.Errorf("thread %s lacks %q", task.Name(), want)
			}
		}
	}
	root, err := os.ReadDir(fmt.Sprintf("/proc/%d/root", v.Process.Pid))
	if err != nil || len(root) != 0 {
		t.Errorf("root: %v, %v", root, err)
	}
	if mounts := proc(t, v, "mounts"); strings.Count(mounts, "\n") != 1 || !strings.Contains(mounts, " tmpfs ro,") {
		t.Errorf("mounts:\n%s", mounts)
	}
	if devs := proc(t, v, "net/dev"); strings.Count(devs, ":") != 1 || !strings.Contains(devs, "lo:") {
		t.Errorf("network devices:\n%s", devs)
	}
	checkFiles(t, v)
}

// checkFiles compares the descriptors with what a monitor has.
func checkFiles(t *testing.T, v *vmtest.VMX) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd/", v.Process.Pid)
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	allowed := []string{"/dev/null", "pipe:", "socket:", "console.log", "anon_inode:", "vmlinuz", ".img", "/disk", "/dev/net/tun", "/dev/vhost-net"}
	for _, f := range files {
		target, err := os.Readlink(dir + f.Name())
		if err != nil {
			t.Fatal(err)
		}
		known := false
		for _, a := range allowed {
			known = known || strings.Contains(target, a)
		}
		if !known {
			t.Errorf("descriptor %s is %s", f.Name(), target)
		}
	}
}
