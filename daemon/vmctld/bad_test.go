// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"vmctl/daemon/api"
)

// TestBadInput: each is a clear error with a stable code, and nothing is made.
func TestBadInput(t *testing.T) {
	r := newRig(t)
	boot, disks := filepath.Join(r.dir, "state", "boot"), filepath.Join(r.dir, "state", "disks")
	for _, err := range []error{
		os.Symlink("runs", filepath.Join(boot, "link")),
		os.Symlink("/etc", filepath.Join(boot, "linkdir")),
		os.Mkdir(filepath.Join(boot, "dir"), 0o755),
		os.WriteFile(filepath.Join(boot, "empty"), nil, 0o644),
		syscall.Mkfifo(filepath.Join(boot, "fifo"), 0o644),
		os.Truncate(filepath.Join(boot, "slow"), 0),
		sparse(filepath.Join(boot, "huge"), 1<<30),
		sparse(filepath.Join(disks, "good"), 1<<20),
		sparse(filepath.Join(disks, "odd"), 1<<20+1),
		os.WriteFile(filepath.Join(disks, "empty"), nil, 0o644),
		os.Symlink("good", filepath.Join(disks, "link")),
		os.Mkdir(filepath.Join(disks, "dir"), 0o755),
		syscall.Mkfifo(filepath.Join(disks, "fifo"), 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	r.create("taken", "runs")
	spec := func(s string) string { return `{"name":"bad","spec":{` + s + `}}` }
	kernel := func(path string) string { return spec(fmt.Sprintf(`"boot":{"kernel":%q}`, path)) }
	disk := func(disks string) string { return spec(`"boot":{"kernel":"runs"},"disks":[` + disks + `]`) }
	qcow2 := func(backing string) string {
		return `{"path":"good","readOnly":true,"format":"qcow2","backing":[` + backing + `]}`
	}
	for _, c := range []struct {
		what, method, path, body string
		status                   int
		code                     api.Code
	}{
		{"vcpus 0", "POST", "/v1/vms", spec(`"vcpus":0,"boot":{"kernel":"runs"}`), 422, api.CodeVCPUsInvalid},
		{"vcpus above the limit", "POST", "/v1/vms", spec(`"vcpus":65,"boot":{"kernel":"runs"}`), 422, api.CodeVCPUsInvalid},
		{"vcpus of another type", "POST", "/v1/vms", spec(`"vcpus":"two","boot":{"kernel":"runs"}`), 422, api.CodeVCPUsInvalid},
		{"vcpus not whole", "POST", "/v1/vms", spec(`"vcpus":1.5,"boot":{"kernel":"runs"}`), 422, api.CodeVCPUsInvalid},
		{"memory 0", "POST", "/v1/vms", spec(`"memoryBytes":0,"boot":{"kernel":"runs"}`), 422, api.CodeMemoryInvalid},
		{"memory negative", "POST", "/v1/vms", spec(`"memoryBytes":-4096,"boot":{"kernel":"runs"}`), 422, api.CodeMemoryInvalid},
		{"memory above the limit", "POST", "/v1/vms", spec(`"memoryBytes":1099511631872,"boot":{"kernel":"runs"}`), 422, api.CodeMemoryInvalid},
		{"memory beyond all numbers", "POST", "/v1/vms", spec(`"memoryBytes":1e300,"boot":{"kernel":"runs"}`), 422, api.CodeMemoryInvalid},
		{"memory not in pages", "POST", "/v1/vms", spec(`"memoryBytes":67108865,"boot":{"kernel":"runs"}`), 422, api.CodeMemoryInvalid},
		{"cmdline too long", "POST", "/v1/vms", spec(`"boot":{"kernel":"runs","cmdline":"` + strings.Repeat("x", 2048) + `"}`), 422, api.CodeCmdlineTooLong},
		{"cmdline too long in bytes", "POST", "/v1/vms", spec(`"boot":{"kernel":"runs","cmdline":"` + strings.Repeat("é", 1024) + `"}`), 422, api.CodeCmdlineTooLong},
		{"cmdline with NUL", "POST", "/v1/vms", spec(`"boot":{"kernel":"runs","cmdline":"a\u0000b"}`), 422, api.CodeInvalidRequest},
		{"unknown policy", "POST", "/v1/vms", spec(`"onReset":"panic","boot":{"kernel":"runs"}`), 422, api.CodeInvalidRequest},
		{"neither kernel nor disk", "POST", "/v1/vms", spec(`"vcpus":1`), 422, api.CodeBootFileInvalid},
		{"empty kernel and no disk", "POST", "/v1/vms", spec(`"boot":{"kernel":""}`), 422, api.CodeBootFileInvalid},
		{"initrd without a kernel", "POST", "/v1/vms", spec(`"boot":{"initrd":"runs"},"disks":[{"path":"good"}]`), 422, api.CodeBootFileInvalid},
		{"cmdline without a kernel", "POST", "/v1/vms", spec(`"boot":{"cmdline":"quiet"},"disks":[{"path":"good"}]`), 422, api.CodeInvalidRequest},
		{"unknown field", "POST", "/v1/vms", `{"name":"bad","color":"red","spec":{"boot":{"kernel":"runs"}}}`, 422, api.CodeUnknownField},
		{"unknown field deep down", "POST", "/v1/vms", spec(`"boot":{"kernel":"runs","initramfs":"x"}`), 422, api.CodeUnknownField},
		{"field in another case", "POST", "/v1/vms", spec(`"VCPUS":9,"boot":{"kernel":"runs"}`), 422, api.CodeUnknownField},
		{"name with odd characters", "POST", "/v1/vms", `{"name":"a/../b","spec":{"boot":{"kernel":"runs"}}}`, 422, api.CodeNameInvalid},
		{"name with a colon", "POST", "/v1/vms", `{"name":"a:powerOn","spec":{"boot":{"kernel":"runs"}}}`, 422, api.CodeNameInvalid},
		{"name with a newline", "POST", "/v1/vms", `{"name":"ab\n","spec":{"boot":{"kernel":"runs"}}}`, 422, api.CodeNameInvalid},
		{"name in capitals", "POST", "/v1/vms", `{"name":"Web","spec":{"boot":{"kernel":"runs"}}}`, 422, api.CodeNameInvalid},
		{"name too long", "POST", "/v1/vms", `{"name":"` + strings.Repeat("a", 64) + `","spec":{"boot":{"kernel":"runs"}}}`, 422, api.CodeNameInvalid},
		{"name taken", "POST", "/v1/vms", `{"name":"taken","spec":{"boot":{"kernel":"runs"}}}`, 409, api.CodeExists},
		{"no JSON", "POST", "/v1/vms", `{"name":`, 400, api.CodeInvalidRequest},
		{"no body", "POST", "/v1/vms", ``, 400, api.CodeInvalidRequest},
		{"a list", "POST", "/v1/vms", `[]`, 422, api.CodeInvalidRequest},
		{"body too large", "POST", "/v1/vms", strings.Repeat(" ", 1<<20+1), 413, api.CodeTooLarge},
		{"kernel missing", "POST", "/v1/vms", kernel("nothing"), 422, api.CodeBootFileMissing},
		{"kernel below a file", "POST", "/v1/vms", kernel("runs/x"), 422, api.CodeBootFileMissing},
		{"kernel outside", "POST", "/v1/vms", kernel("../vmctl.db"), 422, api.CodeBootFileInvalid},
		{"kernel outside by a detour", "POST", "/v1/vms", kernel("dir/../../vmctl.db"), 422, api.CodeBootFileInvalid},
		{"kernel outside, absolute", "POST", "/v1/vms", kernel("/etc/passwd"), 422, api.CodeBootFileInvalid},
		{"kernel of a neighbour folder", "POST", "/v1/vms", kernel(boot + "x/runs"), 422, api.CodeBootFileInvalid},
		{"kernel absolute, then outside", "POST", "/v1/vms", kernel(boot + "/../vmctl.db"), 422, api.CodeBootFileInvalid},
		{"kernel behind a link", "POST", "/v1/vms", kernel("link"), 422, api.CodeBootFileInvalid},
		{"kernel behind a linked folder", "POST", "/v1/vms", kernel("linkdir/passwd"), 422, api.CodeBootFileInvalid},
		{"kernel is a folder", "POST", "/v1/vms", kernel("dir"), 422, api.CodeBootFileInvalid},
		{"kernel is the boot folder", "POST", "/v1/vms", kernel("."), 422, api.CodeBootFileInvalid},
		{"kernel is a pipe", "POST", "/v1/vms", kernel("fifo"), 422, api.CodeBootFileInvalid},
		{"kernel is empty", "POST", "/v1/vms", kernel("empty"), 422, api.CodeBootFileInvalid},
		{"kernel without a name", "POST", "/v1/vms", kernel(""), 422, api.CodeBootFileInvalid},
		{"kernel with NUL", "POST", "/v1/vms", spec(`"boot":{"kernel":"runs\u0000x"}`), 422, api.CodeBootFileInvalid},
		{"kernel larger than memory", "POST", "/v1/vms", kernel("huge"), 422, api.CodeBootFileInvalid},
		{"initrd missing", "POST", "/v1/vms", spec(`"boot":{"kernel":"runs","initrd":"nothing"}`), 422, api.CodeBootFileMissing},
		{"initrd larger than memory", "POST", "/v1/vms", spec(`"boot":{"kernel":"runs","initrd":"huge"}`), 422, api.CodeInitrdTooLarge},

		{"disk missing", "POST", "/v1/vms", disk(`{"path":"nothing"}`), 422, api.CodeDiskMissing},
		{"disk without a path", "POST", "/v1/vms", disk(`{}`), 422, api.CodeDiskInvalid},
		{"disk with an empty path", "POST", "/v1/vms", disk(`{"path":""}`), 422, api.CodeDiskInvalid},
		{"disk outside", "POST", "/v1/vms", disk(`{"path":"../vmctl.db"}`), 422, api.CodeDiskInvalid},
		{"disk outside, absolute", "POST", "/v1/vms", disk(`{"path":"/etc/passwd","readOnly":true}`), 422, api.CodeDiskInvalid},
		{"disk behind a link", "POST", "/v1/vms", disk(`{"path":"link"}`), 422, api.CodeDiskInvalid},
		{"disk is a folder", "POST", "/v1/vms", disk(`{"path":"dir"}`), 422, api.CodeDiskInvalid},
		{"disk is a folder to read", "POST", "/v1/vms", disk(`{"path":"dir","readOnly":true}`), 422, api.CodeDiskInvalid},
		{"disk is a pipe", "POST", "/v1/vms", disk(`{"path":"fifo"}`), 422, api.CodeDiskInvalid},
		{"disk is empty", "POST", "/v1/vms", disk(`{"path":"empty"}`), 422, api.CodeDiskInvalid},
		{"disk of no whole sectors", "POST", "/v1/vms", disk(`{"path":"odd"}`), 422, api.CodeDiskInvalid},
		{"disk twice", "POST", "/v1/vms", disk(`{"path":"good"},{"path":"good"}`), 422, api.CodeDiskInvalid},
		{"disk with a serial number too long", "POST", "/v1/vms", disk(`{"path":"good","serial":"` + strings.Repeat("x", 21) + `"}`), 422, api.CodeDiskInvalid},
		{"disk with an odd serial number", "POST", "/v1/vms", disk(`{"path":"good","serial":"\u00e9"}`), 422, api.CodeDiskInvalid},
		{"disk with an unknown field", "POST", "/v1/vms", disk(`{"path":"good","cache":"none"}`), 422, api.CodeUnknownField},
		{"too many disks", "POST", "/v1/vms", disk(strings.Repeat(`{"path":"good"},`, 16) + `{"path":"good"}`), 422, api.CodeDiskInvalid},
		{"disk of an unknown format", "POST", "/v1/vms", disk(`{"path":"good","readOnly":true,"format":"vmdk"}`), 422, api.CodeDiskInvalid},
		{"qcow2 to write to", "POST", "/v1/vms", disk(`{"path":"good","format":"qcow2"}`), 422, api.CodeDiskInvalid},
		{"overlay of nothing", "POST", "/v1/vms", disk(`{"path":"empty","format":"overlay"}`), 422, api.CodeDiskInvalid},
		{"overlay missing", "POST", "/v1/vms", disk(`{"path":"nothing","format":"overlay","backing":[{"path":"good"}]}`), 422, api.CodeDiskMissing},
		{"overlay of an overlay", "POST", "/v1/vms", disk(`{"path":"empty","format":"overlay","backing":[{"path":"good","format":"overlay"}]}`), 422, api.CodeDiskInvalid},
		{"backing file of a raw disk", "POST", "/v1/vms", disk(`{"path":"good","readOnly":true,"backing":[{"path":"odd"}]}`), 422, api.CodeDiskInvalid},
		{"backing file missing", "POST", "/v1/vms", disk(qcow2(`{"path":"nothing"}`)), 422, api.CodeDiskMissing},
		{"backing file outside", "POST", "/v1/vms", disk(qcow2(`{"path":"../vmctl.db"}`)), 422, api.CodeDiskInvalid},
		{"backing file without a path", "POST", "/v1/vms", disk(qcow2(`{"format":"raw"}`)), 422, api.CodeDiskInvalid},
		{"backing file of an unknown format", "POST", "/v1/vms", disk(qcow2(`{"path":"good","format":"qed"}`)), 422, api.CodeDiskInvalid},
		{"files behind a raw one", "POST", "/v1/vms", disk(qcow2(`{"path":"good"},{"path":"good"}`)), 422, api.CodeDiskInvalid},
		{"too many backing files", "POST", "/v1/vms", disk(qcow2(strings.Repeat(`{"path":"good","format":"qcow2"},`, 15) + `{"path":"good"}`)), 422, api.CodeDiskInvalid},
		{"unknown console", "POST", "/v1/vms", spec(`"console":"vga","boot":{"kernel":"runs"}`), 422, api.CodeInvalidRequest},

		{"no such path", "GET", "/v2", "", 404, api.CodeNotFound},
		{"path with a slash at its end", "GET", "/v1/vms/", "", 404, api.CodeNotFound},
		{"no such method", "PATCH", "/v1/vms", "", 405, api.CodeMethodNotAllowed},
		{"unheard-of method", "BREW", "/v1/vms", "", 405, api.CodeMethodNotAllowed},
		{"verb by GET", "GET", "/v1/vms/taken:powerOn", "", 422, api.CodeNameInvalid},
		{"verb by GET, escaped", "GET", "/v1/vms/taken%3ApowerOn", "", 422, api.CodeNameInvalid},
		{"verb by DELETE", "DELETE", "/v1/vms/taken:powerOn", "", 422, api.CodeNameInvalid},
		{"no such verb", "POST", "/v1/vms/taken:explode", "", 405, api.CodeMethodNotAllowed},
		{"name with an escaped slash", "GET", "/v1/vms/a%2Fb", "", 422, api.CodeNameInvalid},
		{"name with NUL", "GET", "/v1/vms/a%00b", "", 422, api.CodeNameInvalid},
		{"no such VM", "GET", "/v1/vms/nobody", "", 404, api.CodeNotFound},
		{"no such uuid", "POST", "/v1/vms/00000000-0000-4000-8000-000000000000:powerOn", "", 404, api.CodeNotFound},
		{"unknown parameter", "GET", "/v1/vms?color=red", "", 422, api.CodeUnknownField},
		{"unknown parameter of the stream", "GET", "/v1/events?color=red", "", 422, api.CodeUnknownField},
		{"limit 0", "GET", "/v1/vms?limit=0", "", 422, api.CodeInvalidRequest},
		{"limit too large", "GET", "/v1/tasks?limit=1001", "", 422, api.CodeInvalidRequest},
		{"cursor made up", "GET", "/v1/vms?cursor=abc", "", 422, api.CodeInvalidRequest},
		{"cursor of another list", "GET", "/v1/tasks?cursor=dm1zOmE", "", 422, api.CodeInvalidRequest},
		{"no such task", "GET", "/v1/tasks/x", "", 404, api.CodeNotFound},
		{"wait too long", "GET", "/v1/tasks/x?wait=2h", "", 422, api.CodeInvalidRequest},
		{"since is no number", "GET", "/v1/events?since=x", "", 422, api.CodeInvalidRequest},
		{"since is negative", "GET", "/v1/events?since=-1", "", 422, api.CodeInvalidRequest},
		{"powerOff of a VM that is off", "POST", "/v1/vms/taken:powerOff", "", 409, api.CodeStateConflict},
		{"reset of a VM that is off", "POST", "/v1/vms/taken:reset", "", 409, api.CodeStateConflict},
		{"console mode", "POST", "/v1/vms/taken:consoleToken", `{"mode":"admin"}`, 422, api.CodeInvalidRequest},
		{"session by anyone", "PUT", "/v1/sessions/0123456789abcdef", `{"principal":"local:a","groups":[],"expiresAt":"2030-01-01T00:00:00Z","address":""}`, 403, api.CodeForbidden},
	} {
		t.Run(c.what, func(t *testing.T) {
			outer := r.t
			r.t = t
			defer func() { r.t = outer }()
			r.refused(r.do(c.method, c.path, c.body), c.status, c.code)
		})
	}
	r.refused(r.do("DELETE", "/v1/vms/taken", "", "If-Match", `"2"`), 412, api.CodePreconditionFailed)
	r.refused(r.do("DELETE", "/v1/vms/taken", "", "If-Match", `2`), 412, api.CodePreconditionFailed)
	list := want[api.VMList](r, r.do("GET", "/v1/vms", ""), 200)
	if len(list.Items) != 1 || len(r.runs()) != 0 || len(r.monitors()) != 0 {
		t.Errorf("something was made: %d VMs, kernel %v, monitors %v", len(list.Items), r.runs(), r.monitors())
	}
	if tasks := want[api.TaskList](r, r.do("GET", "/v1/tasks", ""), 200); len(tasks.Items) != 0 {
		t.Errorf("tasks were made: %+v", tasks.Items)
	}
}

func sparse(path string, size int64) error {
	if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
		return err
	}
	return os.Truncate(path, size)
}

// TestRunning: what a running VM refuses.
func TestRunning(t *testing.T) {
	r := newRig(t)
	vm := r.create("a", "runs")
	r.power("a", "powerOn")
	r.refused(r.do("POST", "/v1/vms/a:powerOn", ""), 409, api.CodeStateConflict)
	r.refused(r.do("DELETE", "/v1/vms/a", ""), 409, api.CodeStateConflict)
	r.refused(r.do("DELETE", "/v1/vms/a", "", "If-Match", `"1"`), 409, api.CodeStateConflict)
	if s := r.get(vm.ID).Status.State; s != api.StateRunning {
		t.Errorf("state %s", s)
	}
}

// TestStartFails: the task says why, the VM is off, nothing is left.
func TestStartFails(t *testing.T) {
	r := newRig(t)
	vm := r.create("corrupt", "corrupt")
	task := r.end(r.ask(vm.ID, "powerOn"))
	if task.State != api.TaskFailed || task.Error == nil || task.Error.Code != api.CodeBootFileInvalid {
		t.Errorf("%+v %+v", task, task.Error)
	}
	if got := r.get(vm.ID); got.Status.State != api.StateOff || got.Status.LastStop != nil || got.Status.RunID != 0 {
		t.Errorf("%+v %+v", got.Status, got.Status.LastStop)
	}
	vm = r.create("gone", "runs")
	if err := os.Remove(filepath.Join(r.dir, "state", "boot", "runs")); err != nil {
		t.Fatal(err)
	}
	r.refused(r.do("POST", "/v1/vms/gone:powerOn", ""), 422, api.CodeBootFileMissing)
	if got := r.get(vm.ID); got.Status.State != api.StateOff {
		t.Errorf("state %s", got.Status.State)
	}
	r.nothingRuns()
}

// TestKernelFails: each call of a start fails once; the next start succeeds.
func TestKernelFails(t *testing.T) {
	r := newRig(t)
	r.needsFake()
	for _, op := range []string{"create", "delegate", "bind"} {
		vm := r.create("k-"+op, "runs")
		r.kernel.Fail(op, syscall.EIO)
		task := r.end(r.ask(vm.ID, "powerOn"))
		if task.State != api.TaskFailed || task.Error == nil || task.Error.Code != api.CodeKernelFailed {
			t.Errorf("%s: %+v %+v", op, task, task.Error)
		}
		r.kernel.Fail(op, 0)
		r.power(vm.ID, "powerOn")
		r.power(vm.ID, "powerOff")
	}
	r.nothingRuns()
}

func (r *rig) nothingRuns() {
	r.t.Helper()
	if len(r.runs()) != 0 || len(r.monitors()) != 0 {
		r.t.Errorf("left: kernel %v, monitors %v", r.runs(), r.monitors())
	}
}
