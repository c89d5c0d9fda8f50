// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"vmctl/daemon/api"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestMain is vmctl itself when a test starts this binary as such.
func TestMain(m *testing.M) {
	if os.Getenv("VMCTL_TEST_MAIN") == "1" {
		main()
		return
	}
	os.Exit(m.Run())
}

var epoch = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// stub is a small vmctld: VMs, and tasks that are done when they are asked
// for a second time.
type stub struct {
	t *testing.T

	mu       sync.Mutex
	vms      map[string]*api.VM
	tasks    map[string]*api.Task
	requests []string // method, path and body
	fail     *api.TaskError
	events   string // of the stream
	token    api.ConsoleToken
}

func newStub(t *testing.T) *stub {
	s := &stub{t: t, vms: map[string]*api.VM{}, tasks: map[string]*api.Task{}}
	s.add(api.VM{
		ID: "3e5c0f6e-8f5c-4c55-9d5c-1a2b3c4d5e01", Name: "web", Generation: 3, CreatedAt: epoch.Add(-72 * time.Hour), UpdatedAt: epoch.Add(-3 * time.Minute),
		Seed: &api.SeedSize{UserDataBytes: 1536, NetworkConfigBytes: 40},
		Spec: api.VMSpec{VCPUs: 2, MemoryBytes: 1536 << 20, OnReset: api.ResetRestart, Boot: api.BootSpec{Kernel: "vmlinuz", Initrd: "initrd.img", Cmdline: "console=ttyS0 quiet"}, Vsock: &api.VsockSpec{CID: 3}},
		Status: api.VMStatus{State: api.StateRunning, RunID: 17, Since: epoch.Add(-3 * time.Minute), Allowed: []api.Verb{api.VerbPowerOff, api.VerbReset, api.VerbConsoleToken},
			LastStop: &api.LastStop{Reason: api.StopMonitorGone, At: epoch.Add(-5 * time.Minute), Detail: "killed by signal 9", RunID: 16}},
	})
	s.add(api.VM{
		ID: "3e5c0f6e-8f5c-4c55-9d5c-1a2b3c4d5e02", Name: "db", Generation: 1, CreatedAt: epoch.Add(-50 * time.Hour), UpdatedAt: epoch.Add(-50 * time.Hour),
		Spec: api.VMSpec{VCPUs: 1, MemoryBytes: 512 << 20, OnReset: api.ResetStop, Boot: api.BootSpec{Kernel: "vmlinuz"}},
		Status: api.VMStatus{State: api.StateOff, Since: epoch.Add(-50 * time.Hour), Allowed: []api.Verb{api.VerbPowerOn, api.VerbDelete},
			LastStop: &api.LastStop{Reason: api.StopPanic, Claimed: true, At: epoch.Add(-50 * time.Hour), Detail: "\x1b[31mOops\x1b[0m\nline two", RunID: 4}},
	})
	return s
}

func (s *stub) add(vm api.VM) {
	s.vms[vm.Name], s.vms[vm.ID] = &vm, &vm
}

func (s *stub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	path := strings.TrimPrefix(r.URL.Path, "/api")
	target := path
	if r.URL.RawQuery != "" {
		target += "?" + r.URL.RawQuery
	}
	s.requests = append(s.requests, strings.TrimSpace(fmt.Sprintf("%s %s %s", r.Method, target, body)))
	name, verb, _ := strings.Cut(strings.TrimPrefix(path, "/v1/vms/"), ":")
	name, ofBalloon := strings.CutSuffix(name, "/balloon")
	name, disk, ofDisk := strings.Cut(name, "/disks/")
	switch {
	case path == "/v1/vms" && r.Method == http.MethodPost:
		s.create(w, body)
	case path == "/v1/vms":
		s.list(w, r)
	case path == "/v1/vms/web/seed":
		answer(w, 200, api.Seed{UserData: "#cloud-config\nhostname: \x1b[2Jweb  \n", NetworkConfig: "version: 2"})
	case strings.HasPrefix(path, "/v1/vms/") && s.vms[name] == nil:
		refuse(w, 404, api.CodeNotFound, "no VM "+name)
	case ofBalloon:
		answer(w, 200, api.Balloon{TargetBytes: 512 << 20, ActualBytes: 500 << 20, Memory: &api.GuestMemory{TotalBytes: 1500 << 20, FreeBytes: 300 << 20, AvailableBytes: 700 << 20, CachesBytes: 400 << 20, MajorFaults: 7}})
	case strings.HasPrefix(path, "/v1/vms/"):
		n, err := strconv.Atoi(disk)
		if ofDisk != (err == nil) {
			s.t.Errorf("disk %q", disk)
		}
		s.vm(w, r, s.vms[name], verb, n)
	case strings.HasPrefix(path, "/v1/tasks/"):
		s.task(w, strings.TrimPrefix(path, "/v1/tasks/"))
	case path == "/v1/tasks":
		s.listTasks(w, r)
	case path == "/v1/host":
		answer(w, 200, api.Host{Hostname: "h1", Kernel: "6.12.0", CPUs: 2, MemoryBytes: 8 << 30, Version: "v0.1.0", StartedAt: epoch,
			Module: api.HostModule{Present: true, KVM: true, ABI: 1, Instance: "i1", MaxVMs: 1000}})
	case path == "/v1/whoami":
		answer(w, 200, api.WhoAmI{Principal: "unix:0", Groups: []string{}, Roles: []api.Role{api.RoleAdmin}})
	case path == "/v1/events":
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, ": vmctl\n\n", s.events)
	default:
		refuse(w, 404, api.CodeNotFound, "no such path")
	}
}

func (s *stub) create(w http.ResponseWriter, body []byte) {
	var in api.VMCreate
	if err := json.Unmarshal(body, &in); err != nil {
		s.t.Error(err)
	}
	if s.vms[in.Name] != nil {
		refuse(w, 409, api.CodeExists, "a VM named "+in.Name+" exists")
		return
	}
	vm := api.VM{ID: "3e5c0f6e-8f5c-4c55-9d5c-1a2b3c4d5eff", Name: in.Name, Spec: in.Spec, Generation: 1, CreatedAt: epoch, UpdatedAt: epoch,
		Status: api.VMStatus{State: api.StateOff, Since: epoch, Allowed: []api.Verb{api.VerbPowerOn, api.VerbDelete}}}
	s.add(vm)
	answer(w, 201, vm)
}

// list gives one VM a page, so that every list is walked.
func (s *stub) list(w http.ResponseWriter, r *http.Request) {
	page := api.VMList{Items: []api.VM{*s.vms["db"]}, NextCursor: "web", EventSeq: 44}
	if r.URL.Query().Get("cursor") != "" {
		page = api.VMList{Items: []api.VM{*s.vms["web"]}, EventSeq: 44}
	}
	answer(w, 200, page)
}

func (s *stub) vm(w http.ResponseWriter, r *http.Request, vm *api.VM, verb string, disk int) {
	switch {
	case verb == "" && r.Method == http.MethodGet:
		answer(w, 200, vm)
	case verb == "" && r.Method == http.MethodPatch:
		if r.Header.Get("If-Match") != fmt.Sprintf("%q", fmt.Sprint(vm.Generation)) {
			refuse(w, 412, api.CodePreconditionFailed, fmt.Sprintf("the VM has generation %d", vm.Generation))
			return
		}
		vm.Generation++
		answer(w, 200, vm)
	case verb == "setBalloon":
		vm.Spec.BalloonBytes = 1 << 29
		vm.Generation++
		answer(w, 200, vm)
	case verb == "consoleToken":
		answer(w, 200, s.token)
	case verb == "powerOn" && vm.Status.State != api.StateOff, verb == "" && vm.Status.State != api.StateOff:
		refuse(w, 409, api.CodeStateConflict, "the VM is "+string(vm.Status.State))
	default:
		task := &api.Task{ID: "7d7c0f6e-0000-4000-8000-00000000000" + fmt.Sprint(len(s.tasks)), Kind: "vm." + api.TaskKind(verb), State: api.TaskQueued,
			VM: &api.VMRef{ID: vm.ID, Name: vm.Name}, Actor: "unix:0", RequestID: "r-9", CreatedAt: epoch.Add(-time.Minute)}
		if verb == "snapshot" || verb == "merge" {
			task.Disk = &disk
		}
		if strings.HasPrefix(verb, "attach") || strings.HasPrefix(verb, "detach") {
			task.Device = &api.Device{Disk: &api.DiskSpec{Path: "a"}}
		}
		s.tasks[task.ID] = task
		answer(w, 202, api.TaskAccepted{Task: *task})
	}
}

func (s *stub) task(w http.ResponseWriter, id string) {
	task := s.tasks[id]
	if task == nil {
		refuse(w, 404, api.CodeNotFound, "no task "+id)
		return
	}
	ended := epoch
	task.State, task.Progress, task.EndedAt = api.TaskSucceeded, 100, &ended
	if task.Error = s.fail; s.fail != nil {
		task.State = api.TaskFailed
	} else if task.Kind == api.TaskPowerOn {
		s.vms[task.VM.ID].Status.State = api.StateRunning
	}
	answer(w, 200, task)
}

func (s *stub) listTasks(w http.ResponseWriter, r *http.Request) {
	vm := &api.VMRef{ID: s.vms["web"].ID, Name: "web"}
	answer(w, 200, api.TaskList{EventSeq: 44, Items: []api.Task{
		{ID: "7d7c0f6e-0000-4000-8000-0000000000a3", Kind: api.TaskPowerOff, VM: vm, State: api.TaskQueued, QueuePosition: 1, CreatedAt: epoch.Add(-time.Second)},
		{ID: "7d7c0f6e-0000-4000-8000-0000000000a2", Kind: api.TaskPowerOn, VM: vm, State: api.TaskRunning, Progress: 40, CreatedAt: epoch.Add(-2 * time.Minute)},
		{ID: "7d7c0f6e-0000-4000-8000-0000000000a1", Kind: api.TaskDelete, State: api.TaskFailed, CreatedAt: epoch.Add(-2 * time.Hour),
			Error: &api.TaskError{Code: api.CodeMonitorFailed, Detail: "no"}},
	}})
}

func (s *stub) saw() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.requests, "\n")
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func refuse(w http.ResponseWriter, status int, code api.Code, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(api.Problem{Status: status, Code: code, Detail: detail, RequestID: "r-1"})
}

// onSocket serves h and returns the path of its socket.
func onSocket(t *testing.T, h http.Handler) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "api.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(h)
	srv.Listener.Close()
	srv.Listener = l
	srv.Start()
	t.Cleanup(srv.Close)
	return path
}

// onTLS serves h with a certificate of its own and returns its fingerprint.
func onTLS(t *testing.T, h http.Handler) (srv *httptest.Server, fingerprint string) {
	t.Helper()
	srv = httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	sum := sha256.Sum256(srv.Certificate().Raw)
	return srv, hex.EncodeToString(sum[:])
}

// user runs commands with one environment and home.
type user struct {
	t   *testing.T
	env map[string]string
	in  string // of the next command
}

func newUser(t *testing.T, env ...string) *user {
	u := &user{t: t, env: map[string]string{"HOME": t.TempDir()}}
	for i := 0; i+1 < len(env); i += 2 {
		u.env[env[i]] = env[i+1]
	}
	return u
}

// run runs one command line and returns what it printed and its status.
func (u *user) run(args ...string) (out, errOut string, status int) {
	return u.runIn(u.t.Context(), args...)
}

func (u *user) runIn(ctx context.Context, args ...string) (out, errOut string, status int) {
	u.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		u.t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.WriteString(w, u.in); err != nil { // shorter than a pipe holds
		u.t.Fatal(err)
	}
	w.Close()
	u.in = ""
	var stdout, stderr bytes.Buffer
	p := &program{in: r, out: &stdout, errOut: &stderr, getenv: func(k string) string { return u.env[k] }, now: func() time.Time { return epoch }}
	status = p.run(ctx, args)
	return stdout.String(), stderr.String(), status
}

// golden compares a text with testdata/name.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is\n%s\nwant\n%s", name, got, want)
	}
}
