// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/daemon/api"
	"vmctl/daemon/kern"
	"vmctl/daemon/kern/kerntest"
	"vmctl/daemon/launch/launchtest"
	"vmctl/daemon/vm"
)

// TestMain lets the test binary be the daemon and its monitors as well: a
// process that a test kills must be a real one.
func TestMain(m *testing.M) {
	if launchtest.IsStub() {
		launchtest.Main()
	}
	if len(os.Args) > 0 && os.Args[0] == "vmctld" {
		daemonMain()
	}
	os.Exit(m.Run())
}

// realDevice is the module's device when the tests are to run on it, in the
// lab: build/lab exec -- env VMCTLD_TEST_DEVICE=/dev/vmm vmctld.test
func realDevice() string { return os.Getenv("VMCTLD_TEST_DEVICE") }

// kernelAt is the kernel behind a device, fake or real.
func kernelAt(device string) module {
	if realDevice() != "" {
		return kern.New(device)
	}
	return kerntest.NewClient(device)
}

// daemonMain is main with the fake kernel, and monitors without privileges; on
// the module it is main.
func daemonMain() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	o, err := parseFlags(os.Args[1:])
	if err == nil {
		if realDevice() == "" {
			o.unconfined, o.testNetwork = true, stubNetwork(o.bridges)
		}
		err = serve(ctx, o, kernelAt(o.device))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "vmctld:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// rig is a fake kernel and a daemon on it.
type rig struct {
	t      *testing.T
	dir    string
	kernel *kerntest.Kernel // nil on the module
	device string
	made   map[string]bool // uuids
	http   *http.Client
	args   []string
	proc   *os.Process
	log    *logBuffer
}

// newRig starts a kernel and a daemon. args are added to the command line.
func newRig(t *testing.T, args ...string) *rig {
	t.Helper()
	// Short: a unix socket's path has 107 bytes.
	dir, err := os.MkdirTemp("", "vmctld")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &rig{t: t, dir: dir, device: realDevice(), args: args, log: &logBuffer{}, made: make(map[string]bool)}
	if r.device == "" {
		r.device = filepath.Join(dir, "vmm")
		if r.kernel, err = kerntest.Listen(r.device); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.kernel.Close)
	}
	r.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(dir, "run", "api.sock"))
		}, DisableKeepAlives: true}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("daemon's log:\n%s", r.log)
		}
	})
	for name, text := range map[string]string{"runs": launchtest.Runs, "corrupt": launchtest.Corrupt, "hangs": launchtest.Hangs,
		"slow": launchtest.Slow, "powersoff": launchtest.PowersOff, "panics": launchtest.Panics, "resets": launchtest.Resets,
		"crashes": launchtest.Crashes, "stubborn": launchtest.Stubborn, "breaks": launchtest.Breaks, "calls": launchtest.Calls,
		"falters": launchtest.Falters, "tires": launchtest.Tires} {
		r.bootFile(name, text)
	}
	r.start()
	t.Cleanup(r.cleanup)
	return r
}

// runs returns the kernel VMs of this rig's VMs.
func (r *rig) runs() []vm.Run {
	r.t.Helper()
	all, _, err := kernelAt(r.device).List(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(run vm.Run) bool { return !r.made[run.UUID] })
}

// needsFake skips a test that makes the kernel do what the module never does.
func (r *rig) needsFake() {
	r.t.Helper()
	if r.kernel == nil {
		r.t.Skip("needs a kernel that fails when it is told to")
	}
}

func (r *rig) bootFile(name, text string) {
	r.t.Helper()
	dir := filepath.Join(r.dir, "state", "boot")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// start runs the daemon and waits until it answers.
func (r *rig) start() {
	r.t.Helper()
	r.launch()
	r.until("the daemon answers", func() bool {
		resp, err := r.http.Get("http://vmctld/v1")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

func (r *rig) launch() {
	r.t.Helper()
	self, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		r.t.Fatal(err)
	}
	argv := append([]string{"vmctld", "--run-dir", r.dir + "/run", "--state-dir", r.dir + "/state", "--device", r.device,
		"--vmx", self, "--group", strconv.Itoa(os.Getgid()), "--cgroup", "none", "--debug",
		"--grant", fmt.Sprintf("unix:%d=admin", os.Getuid())}, r.args...)
	r.proc, err = os.StartProcess(self, argv, &os.ProcAttr{Files: []*os.File{nil, writer, writer}, Env: os.Environ()})
	writer.Close()
	if err != nil {
		r.t.Fatal(err)
	}
	go io.Copy(r.log, reader) // ends with the daemon
}

// kill is SIGKILL, in the middle of whatever it does.
func (r *rig) kill() {
	r.t.Helper()
	r.signal(syscall.SIGKILL)
}

// stop is SIGTERM; the daemon must end well.
func (r *rig) stop() {
	r.t.Helper()
	if st := r.signal(syscall.SIGTERM); !st.Success() {
		r.t.Errorf("daemon ended with %v", st)
	}
}

func (r *rig) signal(sig os.Signal) *os.ProcessState {
	r.t.Helper()
	if err := r.proc.Signal(sig); err != nil {
		r.t.Fatal(err)
	}
	st, err := r.proc.Wait()
	if err != nil {
		r.t.Fatal(err)
	}
	r.proc = nil
	return st
}

// cleanup ends the daemon, and monitors that outlive it.
func (r *rig) cleanup() {
	if r.proc != nil {
		r.stop()
	}
	for _, m := range r.monitors() {
		syscall.Kill(m, syscall.SIGKILL)
	}
	for _, bad := range []string{"DATA RACE", "panic:", "superfluous"} {
		if log := r.log.String(); strings.Contains(log, bad) {
			r.t.Errorf("%s in the daemon's log", bad)
		}
	}
}

// monitors returns the processes of this rig's VMs.
func (r *rig) monitors() []int {
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	var pids []int
	for _, p := range paths {
		raw, err := os.ReadFile(p)
		argv := bytes.Split(raw, []byte{0})
		if err != nil || len(argv) < 3 || string(argv[0]) != "vmx" {
			continue
		}
		if _, err := os.Stat(filepath.Join(r.dir, "run", "ctl", string(argv[2])+".sock")); err == nil {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(p)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// until polls: what it waits for is in another process.
func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			r.t.Fatalf("never: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// reply is an answer of the daemon.
type reply struct {
	status  int
	header  http.Header
	body    []byte
	problem api.Problem
}

// do sends a request; body is JSON text or nil.
func (r *rig) do(method, path, body string, header ...string) reply {
	r.t.Helper()
	req, err := http.NewRequest(method, "http://vmctld"+path, bytes.NewReader([]byte(body)))
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := r.http.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.read(resp)
}

func (r *rig) read(resp *http.Response) reply {
	r.t.Helper()
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	out := reply{status: resp.StatusCode, header: resp.Header, body: raw}
	if resp.StatusCode >= 400 {
		if ct := resp.Header.Get("Content-Type"); ct != "application/problem+json" {
			r.t.Errorf("%d has content type %q: %s", resp.StatusCode, ct, raw)
		}
		if err := json.Unmarshal(raw, &out.problem); err != nil {
			r.t.Errorf("problem is not JSON: %v: %s", err, raw)
		}
		if out.problem.RequestID == "" || out.problem.RequestID != resp.Header.Get("X-Request-Id") || out.problem.Status != resp.StatusCode {
			r.t.Errorf("problem does not fit its headers: %+v", out.problem)
		}
	}
	return out
}

// want checks the status and decodes the body.
func want[T any](r *rig, got reply, status int) T {
	r.t.Helper()
	var v T
	if got.status != status {
		r.t.Fatalf("status %d, want %d: %s", got.status, status, got.body)
	}
	if err := json.Unmarshal(got.body, &v); err != nil {
		r.t.Fatalf("body: %v: %s", err, got.body)
	}
	return v
}

// refused checks a problem's status and code.
func (r *rig) refused(got reply, status int, code api.Code) {
	r.t.Helper()
	if got.status != status || got.problem.Code != code {
		r.t.Errorf("got %d %q, want %d %q: %s", got.status, got.problem.Code, status, code, got.body)
	}
}

// create makes a VM that boots a file of the boot folder.
func (r *rig) create(name, kernel string) api.VM {
	r.t.Helper()
	v := want[api.VM](r, r.do("POST", "/v1/vms", fmt.Sprintf(`{"name":%q,"spec":{"memoryBytes":67108864,"boot":{"kernel":%q}}}`, name, kernel)), 201)
	r.made[v.ID] = true
	return v
}

func (r *rig) get(ident string) api.VM {
	r.t.Helper()
	return want[api.VM](r, r.do("GET", "/v1/vms/"+ident, ""), 200)
}

// ask sends a verb and returns its task.
func (r *rig) ask(ident, verb string) api.Task {
	r.t.Helper()
	return want[api.TaskAccepted](r, r.do("POST", "/v1/vms/"+ident+":"+verb, ""), 202).Task
}

// end waits for the end of a task.
func (r *rig) end(t api.Task) api.Task {
	r.t.Helper()
	done := want[api.Task](r, r.do("GET", "/v1/tasks/"+t.ID+"?wait=20s", ""), 200)
	if !done.Ended() {
		r.t.Fatalf("task did not end: %+v", done)
	}
	return done
}

// power sends a verb and wants its task to succeed.
func (r *rig) power(ident, verb string) {
	r.t.Helper()
	if t := r.end(r.ask(ident, verb)); t.State != api.TaskSucceeded || t.Progress != 100 || t.EndedAt == nil {
		r.t.Fatalf("%s: %+v %+v", verb, t, t.Error)
	}
}

// logBuffer keeps what the daemon logs.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
