// SPDX-License-Identifier: Apache-2.0

package launch_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"vmctl/daemon/launch"
	"vmctl/daemon/launch/launchtest"
	"vmctl/daemon/vm"
	monitorspec "vmctl/monitor/spec"
)

func TestMain(m *testing.M) {
	if launchtest.IsStub() {
		launchtest.Main()
	}
	os.Exit(m.Run())
}

// newLauncher has the test binary as its monitor, where every user can read it.
func newLauncher(t *testing.T, unconfined bool) (*launch.Launcher, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "launch")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	vmx := filepath.Join(dir, "vmx")
	for _, err := range []error{os.Chmod(dir, 0o755), os.WriteFile(vmx, self, 0o755), os.Mkdir(filepath.Join(dir, "state"), 0o700)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	l, err := launch.New(launch.Config{VMX: vmx, RunDir: dir, StateDir: filepath.Join(dir, "state"), Group: os.Getgid(),
		Unconfined: unconfined, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return l, dir
}

func start(t *testing.T, l *launch.Launcher) (vm.MonitorSpec, vm.Monitor) {
	t.Helper()
	spec := vm.MonitorSpec{UUID: uuid.NewString(), Name: "web", UID: 234567, MemoryBytes: 64 << 20}
	m, err := l.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.Kill()
		m.Close()
	})
	return spec, m
}

func gone(t *testing.T, m vm.Monitor) {
	t.Helper()
	select {
	case <-m.Gone():
	case <-time.After(20 * time.Second):
		t.Fatal("monitor is not gone")
	}
}

// TestConfined: own ids, no groups, own namespaces, nothing of our environment.
func TestConfined(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("giving a process another user id takes CAP_SETUID")
	}
	l, dir := newLauncher(t, false)
	spec, m := start(t, l)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.Process().PID))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"Uid:\t234567\t234567\t234567\t234567\n", "Gid:\t234567\t234567\t234567\t234567\n"} {
		if !bytes.Contains(status, []byte(line)) {
			t.Errorf("no line %q in\n%s", line, status)
		}
	}
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", m.Process().PID))
	if want := strings.Join(monitorspec.Environment(), "\x00") + "\x00"; err != nil || string(env) != want {
		t.Errorf("environment %q, %v", env, err)
	}
	_, groups, _ := strings.Cut(string(status), "\nGroups:")
	if groups, _, _ = strings.Cut(groups, "\n"); strings.TrimSpace(groups) != "" {
		t.Errorf("groups %q", groups)
	}
	for _, ns := range []string{"user", "mnt", "net", "pid", "ipc", "uts", "cgroup"} {
		theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", m.Process().PID, ns))
		ours, err2 := os.Readlink("/proc/self/ns/" + ns)
		if err != nil || err2 != nil || theirs == ours {
			t.Errorf("namespace %s: %s and %s, %v %v", ns, theirs, ours, err, err2)
		}
	}
	for path, mode := range map[string]fs.FileMode{l.ConsoleSocket(spec.UUID): 0o660, filepath.Join(dir, "ctl", spec.UUID+".sock"): 0o600,
		filepath.Join(dir, "state", "vms", spec.UUID, "console.log"): 0o600, filepath.Join(dir, "ctl"): 0o700, filepath.Join(dir, "console"): 0o750} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: %v %v", path, st, err)
		}
	}
	if err := m.Kill(); err != nil {
		t.Fatal(err)
	}
	gone(t, m)
}

// TestAttach: found by its process and its socket; not when either is another's.
func TestAttach(t *testing.T) {
	l, _ := newLauncher(t, true)
	spec, m := start(t, l)
	other := m.Process()
	other.Start++
	if _, err := l.Attach(t.Context(), spec, other); !errors.Is(err, vm.ErrMonitorGone) {
		t.Errorf("another process of that number: %v", err)
	}
	again, err := l.Attach(t.Context(), spec, m.Process())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	select { // the newer connection supersedes
	case _, ok := <-m.Reports():
		if ok {
			t.Error("a report came")
		}
	case <-time.After(20 * time.Second):
		t.Error("the older connection stays")
	}
	if n, err := again.Viewers(t.Context()); err != nil || n != 0 {
		t.Errorf("viewers %d %v", n, err)
	}
	if err := again.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	gone(t, again)
	if _, err := l.Attach(t.Context(), spec, m.Process()); !errors.Is(err, vm.ErrMonitorGone) {
		t.Errorf("after its end: %v", err)
	}
	if err := l.Forget(spec.UUID); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(l.ConsoleSocket(spec.UUID)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("socket: %v", err)
	}
	if err := l.Forget(spec.UUID); err != nil {
		t.Errorf("nothing left to forget: %v", err)
	}
}

// TestSweep: what has no record ends, what has one stays.
func TestSweep(t *testing.T) {
	l, _ := newLauncher(t, true)
	spec, m := start(t, l)
	_, keep := start(t, l)
	next, _ := newLauncher(t, true) // the next daemon's
	if err := next.Sweep(spec, m.Process()); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Viewers(t.Context()); err != nil {
		t.Fatalf("the one with a record: %v", err)
	}
	if err := next.Sweep(spec, vm.Process{}); err != nil {
		t.Fatal(err)
	}
	gone(t, m)
	if _, err := keep.Viewers(t.Context()); err != nil {
		t.Errorf("another VM's: %v", err)
	}
}

// TestStartFails: a program that is no monitor leaves nothing.
func TestStartFails(t *testing.T) {
	for _, vmx := range []string{"/bin/true", "/bin/sleep", "/nonexistent"} {
		dir := t.TempDir()
		state := filepath.Join(dir, "s")
		if err := os.Mkdir(state, 0o700); err != nil {
			t.Fatal(err)
		}
		l, err := launch.New(launch.Config{VMX: vmx, RunDir: dir, StateDir: state, Group: -1, Unconfined: true, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		before := descriptors(t)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		_, err = l.Start(ctx, vm.MonitorSpec{UUID: uuid.NewString(), Name: "x"})
		cancel()
		if err == nil {
			t.Errorf("%s is a monitor", vmx)
		}
		if after := descriptors(t); after > before {
			t.Errorf("%s: %d descriptors, before %d", vmx, after, before)
		}
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}
