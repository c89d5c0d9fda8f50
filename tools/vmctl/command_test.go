// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"vmctl/daemon/api"
)

const journal = `id: 41
event: vm.state
data: {"seq":41,"time":"2026-11-24T11:57:00Z","kind":"vm.state","vm":{"id":"3e5c0f6e-8f5c-4c55-9d5c-1a2b3c4d5e01","name":"web"},"data":{"state":"running"}}

id: 42
event: vm.stopped
data: {"seq":42,"time":"2026-11-24T11:57:30Z","kind":"vm.stopped","vm":{"id":"x","name":"db"},"data":{"reason":"panic","claimed":true,"detail":"\u001b[2Joops"}}

id: 43
event: task.changed
data: {"seq":43,"time":"2026-11-24T11:57:40Z","kind":"task.changed","vm":{"id":"x","name":"db"},"data":{"kind":"vm.powerOn","state":"failed","error":{"code":"monitorFailed","detail":"vmx did not start"}}}

id: 44
event: auth.refused
data: {"seq":44,"time":"2026-11-24T11:57:50Z","kind":"auth.refused","data":{"code":"signatureInvalid","method":"GET","path":"/v1/vms","address":"192.0.2.7"}}

`

// TestOutput holds what each command prints, as a table and as JSON.
func TestOutput(t *testing.T) {
	cases := []struct{ name, line string }{
		{"vm-list", "vm list"}, {"vm-seed", "vm seed web"}, {"vm-show", "vm show web"}, {"vm-show-off", "vm show db"},
		{"vm-create", "vm create new --kernel vmlinuz --initrd i --cmdline quiet --vcpus 4 --memory 2G --on-reset stop"},
		{"vm-create-disk", "vm create new --disk debian.img"},
		{"vm-create-start", "vm create new --kernel vmlinuz --start"},
		{"vm-on", "vm on db"}, {"vm-on-no-wait", "vm on db --no-wait"}, {"vm-off", "vm off web"}, {"vm-reset", "vm reset web db"},
		{"vm-snapshot", "vm snapshot web"}, {"vm-merge", "vm merge web 2"},
		{"vm-attach-disk", "vm attach-disk web a"}, {"vm-detach-disk", "vm detach-disk web a"},
		{"vm-balloon", "vm balloon web"}, {"vm-balloon-set", "vm balloon web 512M"},
		{"vm-delete", "vm delete db"}, {"vm-set", "vm set db --vcpus 4"},
		{"tasks", "tasks"}, {"tasks-limit", "tasks list --limit 1 --vm web --state queued"},
		{"host", "host"}, {"events", "events"}, {"events-since", "events --since 42 --vm db"},
	}
	for _, c := range cases {
		for _, format := range []string{"table", "json"} {
			t.Run(c.name+"/"+format, func(t *testing.T) {
				s := newStub(t)
				s.events = journal
				u := newUser(t, "VMCTL_SOCKET", onSocket(t, s))
				out, errOut, status := u.run(append(strings.Fields(c.line), "-o", format)...)
				if status != 0 || errOut != "" {
					t.Fatalf("status %d, error %q", status, errOut)
				}
				golden(t, c.name+"."+format, out)
				if format == "table" {
					narrow(t, out, strings.HasPrefix(c.name, "events"))
				} else {
					valid(t, out)
				}
			})
		}
	}
}

// narrow checks that a table fits 80 columns and moves no cursor. The text of
// an event is as long as it is; what stands before it leaves room for it.
func narrow(t *testing.T, out string, events bool) {
	t.Helper()
	for line := range strings.Lines(out) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 && !events {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if strings.ContainsAny(out, "\x1b\r\x07\u009b") {
		t.Errorf("control characters in %q", out)
	}
}

func valid(t *testing.T, out string) {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(out))
	for dec.More() {
		var v any
		if err := dec.Decode(&v); err != nil {
			t.Fatalf("not JSON: %v\n%s", err, out)
		}
	}
}

func TestCreateSendsTheSpec(t *testing.T) {
	s := newStub(t)
	u := newUser(t, "VMCTL_SOCKET", onSocket(t, s))
	if _, errOut, status := u.run("vm", "create", "new", "--kernel", "k", "--memory", "256", "--vcpus", "3",
		"--disk", "d.img,serial=a b", "--disk", "e.img,ro", "--disk", "f,ro,format=qcow2,backing=qcow2:g:1,backing=raw:h",
		"--nic", "br0", "--nic", "br1,mac=52:54:00:00:00:01", "--console", "virtio", "--on-crash", "restart", "--vsock=7"); status != 0 {
		t.Fatal(errOut)
	}
	want := `POST /v1/vms {"name":"new","spec":{"vcpus":3,"memoryBytes":268435456,"boot":{"kernel":"k"},"disks":[{"path":"d.img","serial":"a b"},{"path":"e.img","readOnly":true},{"path":"f","readOnly":true,"format":"qcow2","backing":[{"path":"g:1","format":"qcow2"},{"path":"h","format":"raw"}]}],"nics":[{"bridge":"br0"},{"bridge":"br1","mac":"52:54:00:00:00:01"}],"vsock":{"cid":7},"console":"virtio","onReset":"restart","onPoweroff":"stop","onCrash":"restart"}}`
	if s.saw() != want {
		t.Errorf("the server saw %s, want %s", s.saw(), want)
	}
}

// TestCreateSendsTheSeed: files here, and nothing where none is named.
func TestCreateSendsTheSeed(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	s := newStub(t)
	u := newUser(t, "VMCTL_SOCKET", onSocket(t, s))
	out, errOut, status := u.run("vm", "create", "new", "--kernel", "k", "--user-data", file("u", "#cloud-config\n"), "--network-config", file("n", "version: 2\n"))
	if status != 0 || !strings.HasSuffix(s.saw(), `,"seed":{"userData":"#cloud-config\n","networkConfig":"version: 2\n"}}`) {
		t.Errorf("%d %s%s: the server saw %s", status, out, errOut, s.saw())
	}
	for _, c := range []struct{ flag, path, want string }{
		{"--user-data", dir + "/none", "no such file"},
		{"--meta-data", file("long", strings.Repeat("x", api.MaxSeed+1)), "is larger than 64 KiB"},
		{"--network-config", file("binary", "\x1f\x8b"), "is no text in UTF-8"},
		{"--user-data", dir, "is a directory"},
	} {
		if _, errOut, status := u.run("vm", "create", "bad", "--kernel", "k", c.flag, c.path); status != 2 || !strings.Contains(errOut, c.flag+": ") || !strings.Contains(errOut, c.want) {
			t.Errorf("%s %s: status %d, error %q", c.flag, c.path, status, errOut)
		}
	}
	if strings.Contains(s.saw(), "bad") {
		t.Errorf("the server saw %s", s.saw())
	}
}

// What vm set sends is what is to be different, and devices whole.
func TestSet(t *testing.T) {
	for line, want := range map[string]string{
		"--name www --on-crash restart":                  `{"name":"www","spec":{"onCrash":"restart"}}`,
		"--memory 2G --cmdline quiet":                    `{"spec":{"boot":{"cmdline":"quiet"},"memoryBytes":2147483648}}`,
		"--disk-limit 0,bytes=1M,ops=7,burst=50ms":       `{"spec":{"disks":[{"path":"a","serial":"s","limit":{"bytesPerSecond":1048576,"opsPerSecond":7,"burstMillis":50}},{"path":"b"}]}}`,
		"--disk-limit 1":                                 `{"spec":{"disks":[{"path":"a","serial":"s"},{"path":"b"}]}}`,
		"--nic-limit 0,tx-bytes=2M,rx-ops=5 --link 0=up": `{"spec":{"nics":[{"bridge":"br0","mac":"m","receiveLimit":{"opsPerSecond":5},"sendLimit":{"bytesPerSecond":2097152}}]}}`,
		"--vsock --console virtio":                       `{"spec":{"console":"virtio","vsock":{}}}`,
		"--vsock= --disk= --nic=":                        `{"spec":{"disks":null,"nics":null,"vsock":null}}`,
		"--disk c,ops=3 --disk d":                        `{"spec":{"disks":[{"path":"c","limit":{"opsPerSecond":3}},{"path":"d"}]}}`,
	} {
		s := newStub(t)
		s.vms["web"].Spec.Disks = []api.DiskSpec{{Path: "a", Serial: "s"}, {Path: "b", Limit: &api.RateLimit{OpsPerSecond: 1}}}
		if strings.Contains(line, "0,bytes") {
			s.vms["web"].Spec.Disks[1].Limit = nil
		}
		s.vms["web"].Spec.NICs = []api.NICSpec{{Bridge: "br0", MAC: "m", LinkDown: true}}
		u := newUser(t, "VMCTL_SOCKET", onSocket(t, s))
		if out, errOut, status := u.run(append([]string{"vm", "set", "web"}, strings.Fields(line)...)...); status != 0 || !strings.Contains(out, "web: changed, generation ") {
			t.Errorf("%s: status %d, output %q, error %q", line, status, out, errOut)
		}
		if !strings.Contains(s.saw(), "PATCH /v1/vms/"+s.vms["web"].ID+" "+want) {
			t.Errorf("%s: the server saw %s", line, s.saw())
		}
	}
}

// TestPlug: what comes is said as vm create takes it, and what goes by its name.
func TestPlug(t *testing.T) {
	s := newStub(t)
	u := newUser(t, "VMCTL_SOCKET", onSocket(t, s))
	for line, want := range map[string]string{
		"attach-disk web c,ro,serial=s,ops=3":        `web:attachDisk {"disk":{"path":"c","readOnly":true,"serial":"s","limit":{"opsPerSecond":3}}}`,
		"detach-disk web c":                          `web:detachDisk {"path":"c"}`,
		"attach-nic web br0,down,mac=m":              `web:attachNic {"nic":{"bridge":"br0","mac":"m","linkDown":true}}`,
		"detach-nic web 52:54:00:00:00:01":           `web:detachNic {"mac":"52:54:00:00:00:01"}`,
		"detach-nic web 52:54:00:00:00:02 --no-wait": `web:detachNic {"mac":"52:54:00:00:00:02"}`,
	} {
		out, errOut, status := u.run(append([]string{"vm"}, strings.Fields(line)...)...)
		name, _, _ := strings.Cut(strings.Fields(line)[2], ",")
		done := name + " " + line[:6] + "ed"
		if strings.Contains(line, "no-wait") {
			done = "task 7d7c"
		}
		if status != 0 || !strings.Contains(out, "web: "+done) || !strings.Contains(s.saw(), "POST /v1/vms/"+want) {
			t.Errorf("%s: status %d, output %q, error %q: the server saw %s", line, status, out, errOut, s.saw())
		}
	}
}

func TestErrorsAndStatuses(t *testing.T) {
	cases := []struct {
		line   string
		status int
		want   string // in the one line of the error
	}{
		{"vm show none", 3, "vmctl: vm show none: no VM none (notFound, request r-1)"},
		{"vm on web", 4, "vmctl: vm on web: the VM is running (stateConflict, request r-1)"},
		{"vm delete web", 4, "stateConflict"},
		{"vm create web --kernel k", 4, "vmctl: vm create web: a VM named web exists (exists, request r-1)"},
		{"tasks show t-none", 3, "no task t-none"},
		{"vm show Web", 2, `"Web" is neither a VM's name nor a uuid (nameInvalid)`},
		{"vm on", 2, "vm on: usage: vmctl vm on VM..."},
		{"vm show a b", 2, "usage: vmctl vm show VM"},
		{"vm create new", 2, "at least one of the flags in the group [kernel disk] is required"},
		{"vm create new --kernel k --memory lots", 2, `--memory: "lots" is no size`},
		{"vm create new --kernel k --disk ,ro", 2, "--disk ,ro: no file"},
		{"vm create new --kernel k --disk a,rw", 2, `"rw" is neither ro nor serial=TEXT`},
		{"vm create new --kernel k --vsock=2", 2, "not a CID from 3 to 4294967294"},
		{"vm create new --kernel k --vsock 7", 2, "usage: vmctl vm create"},
		{"vm create new --kernel k --disk a,backing=b", 2, `"backing=b" is not backing=FORMAT:FILE`},
		{"vm create new --kernel k --disk a,bytes=lots", 2, `"lots" is no value of bytes`},
		{"vm create new --kernel k --nic ,mac=1", 2, "no bridge"},
		{"vm create new --kernel k --nic br0,ip=1", 2, `"ip=1" is neither mac=ADDRESS nor down nor a limit`},
		{"vm create new --kernel k --nic br0,rx-ops=x", 2, `"x" is no value of ops`},
		{"vm attach-disk web a,rw", 2, `vm attach-disk web: "rw" is neither ro nor serial=TEXT`},
		{"vm attach-nic web ,down", 2, "vm attach-nic web: no bridge"},
		{"vm detach-disk web", 2, "usage: vmctl vm detach-disk VM FILE"},
		{"vm balloon web lots", 2, `"lots" is no size`},
		{"vm set db", 2, "nothing is to change"},
		{"vm set none --vcpus 2", 3, "no VM none"},
		{"vm set db --memory lots", 2, `--memory: "lots" is no size`},
		{"vm set db --disk-limit 2,ops=5", 2, `--disk-limit: the VM has no device "2" of that kind`},
		{"vm set web --disk-limit 0,rate=5", 2, `"rate=5" is none of bytes=SIZE`},
		{"vm set web --nic-limit 0,bytes=5M", 2, `"bytes=5M" is neither mac`},
		{"vm set web --disk a --disk=", 2, "--disk : no file"},
		{"vm set web --vsock=2", 2, "not a CID from 3"},
		{"vm set web --link 0", 2, "neither NUMBER=up nor NUMBER=down"},
		{"vm create new --kernel k --vcpus x", 2, "vm create: invalid argument"},
		{"vm start web", 2, `vm: no command "start"; see vmctl vm --help`},
		{"start", 2, `no command "start"`},
		{"vm list --frob", 2, "vm list: unknown flag: --frob"},
		{"vm list -o yaml", 2, "--output yaml: must be table or json"},
		{"events --since yesterday", 2, "--since yesterday: must be the number of an event"},
		{"vm list --server https://h", 2, "exclude each other"},
		{"console web --wait-for (", 2, "--wait-for"},
		{"console web --take --read-only", 2, "read-only"},
		{"login", 2, "needs --server"},
	}
	for _, c := range cases {
		t.Run(c.line, func(t *testing.T) {
			s := newStub(t)
			s.vms["web"].Spec.Disks, s.vms["web"].Spec.NICs = []api.DiskSpec{{Path: "a"}}, []api.NICSpec{{Bridge: "br0"}}
			socket := onSocket(t, s)
			out, errOut, status := newUser(t).run(append([]string{"--socket", socket}, strings.Fields(c.line)...)...)
			if status != c.status || !strings.Contains(errOut, c.want) || out != "" {
				t.Errorf("status %d, error %q, output %q; want %d and %q", status, errOut, out, c.status, c.want)
			}
			if strings.Count(errOut, "\n") != 1 || !strings.HasPrefix(errOut, "vmctl: ") {
				t.Errorf("the error is not one line: %q", errOut)
			}
		})
	}
}

func TestFailedTasksAreErrors(t *testing.T) {
	s := newStub(t)
	s.fail = &api.TaskError{Code: api.CodeBootFileMissing, Detail: "no file vmlinuz"}
	u := newUser(t, "VMCTL_SOCKET", onSocket(t, s))
	out, errOut, status := u.run("vm", "on", "db")
	if status != 1 || out != "" || !strings.Contains(errOut, "vm on db: no file vmlinuz (bootFileMissing, task 7d7c") {
		t.Errorf("status %d, output %q, error %q", status, out, errOut)
	}
	_, errOut, status = u.run("vm", "create", "new", "--kernel", "k", "--start")
	if status != 1 || !strings.Contains(errOut, "created, but not started: no file vmlinuz") {
		t.Errorf("status %d, error %q", status, errOut)
	}
	out, _, status = u.run("tasks", "show", "7d7c0f6e-0000-4000-8000-000000000000", "--wait")
	if status != 1 || !strings.Contains(out, "no file vmlinuz (bootFileMissing)") {
		t.Errorf("status %d, output %q", status, out)
	}
}

func TestNobodyListens(t *testing.T) {
	out, errOut, status := newUser(t).run("host", "--socket", t.TempDir()+"/none")
	if status != 6 || out != "" || !strings.Contains(errOut, "vmctld does not run here") {
		t.Errorf("status %d, error %q", status, errOut)
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, status := newUser(t, "VMCTL_SOCKET", onSocket(t, newStub(t))).runIn(ctx, "vm", "list")
	if status != 130 {
		t.Errorf("status %d", status)
	}
}

func TestTasksThatAreNotWaitedFor(t *testing.T) {
	asked := make(chan struct{}, 10)
	s := newStub(t)
	socket := onSocket(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/tasks/") {
			asked <- struct{}{}
			<-r.Context().Done() // it takes longer than anybody waits
			return
		}
		s.ServeHTTP(w, r)
	}))
	u := newUser(t, "VMCTL_SOCKET", socket)
	_, errOut, status := u.run("vm", "on", "db", "--timeout", "50ms")
	if status != 1 || !strings.Contains(errOut, "vm on db: not done after 50ms; it goes on as task 7d7c") {
		t.Errorf("status %d, %q", status, errOut)
	}
	<-asked
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	_, errOut, status = u.runIn(ctx, "vm", "on", "db")
	if status != 130 || !strings.Contains(errOut, "vm on db: interrupted; it goes on as task 7d7c") {
		t.Errorf("status %d, %q", status, errOut)
	}
}

func TestEventsTellOfAReset(t *testing.T) {
	s := newStub(t)
	s.events = "event: reset\ndata: {\"reason\":\"too old\",\"seq\":43}\n\n" + journal[strings.Index(journal, "id: 44"):]
	out, errOut, status := newUser(t, "VMCTL_SOCKET", onSocket(t, s)).run("events", "--since", "1")
	if status != 0 || !strings.Contains(errOut, "events are missing up to number 43: too old") || strings.Count(out, "\n") != 1 {
		t.Errorf("status %d, output %q, error %q", status, out, errOut)
	}
}

func TestCompletion(t *testing.T) {
	s := newStub(t)
	u := newUser(t, "VMCTL_SOCKET", onSocket(t, s))
	cases := map[string][]string{
		"vm on ":              {"db\toff", "web\trunning"},
		"vm on db ":           {"web\trunning"},
		"console ":            {"db\toff", "web\trunning"},
		"tasks --vm ":         {"db\toff", "web\trunning"},
		"tasks show ":         {"7d7c0f6e-0000-4000-8000-0000000000a3\tpowerOff web queued"},
		"vm list -o ":         {"json", "table"},
		"vm create x --on":    {"--on-reset"},
		"vm detach-disk web ": {"data.img"},
		"vm detach-nic web ":  {"52:54:00:00:00:01"},
		"vm attach-disk ":     {"db\toff", "web\trunning"},
	}
	s.vms["web"].Spec.Disks = []api.DiskSpec{{Path: "overlay", Own: true, Backing: []api.BackingSpec{{Path: "data.img"}}}}
	s.vms["web"].Spec.NICs = []api.NICSpec{{Bridge: "br0", MAC: "52:54:00:00:00:01"}}
	for line, want := range cases {
		words := append([]string{"__complete"}, strings.Split(line, " ")...)
		out, _, status := u.run(words...)
		for _, w := range want {
			if status != 0 || !strings.Contains("\n"+out, "\n"+w) {
				t.Errorf("%q completes to %q, want %q", line, out, w)
			}
		}
	}
	if out, _, _ := u.run("__complete", "vm", "show", "web", ""); strings.Contains(out, "db") {
		t.Errorf("a second VM is offered to show: %q", out)
	}
	u = newUser(t, "VMCTL_SOCKET", "/none")
	if out, _, status := u.run("__complete", "vm", "on", ""); status != 0 || strings.Contains(out, "none") {
		t.Errorf("without a server: %q, status %d", out, status)
	}
	if out, _, status := u.run("completion", "bash"); status != 0 || !strings.Contains(out, "vmctl") {
		t.Errorf("no completion script: %q", out)
	}
}

func TestSizes(t *testing.T) {
	good := map[string]int64{
		"512": 512 << 20, "512M": 512 << 20, "512MiB": 512 << 20, "2g": 2 << 30, "1.5G": 1536 << 20, "1T": 1 << 40, "4096b": 4096, "16k": 16 << 10,
	}
	for in, want := range good {
		if got, err := parseSize(in); got != want || err != nil {
			t.Errorf("parseSize(%q) = %d, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "M", "-1", "1X", "1MM", "1 G", "1e30", "NaN", "Inf", "infinity", "99999999T", "0x10M"} {
		if got, err := parseSize(in); err == nil {
			t.Errorf("parseSize(%q) = %d", in, got)
		}
	}
	for in, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1 << 20: "1 MiB", 1536 << 20: "1.5 GiB", 1 << 60: "1048576 TiB"} {
		if got := size(in); got != want {
			t.Errorf("size(%d) = %q", in, got)
		}
	}
}
