// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"vmctl/daemon/api"
	"vmctl/daemon/launch/launchtest"
)

// withVsock makes a VM with sockets.
func (r *rig) withVsock(name, kernel, vsock string) api.VM {
	r.t.Helper()
	vm := want[api.VM](r, r.do("POST", "/v1/vms", vsockBody(name, kernel, vsock)), 201)
	r.made[vm.ID] = true
	return vm
}

func vsockBody(name, kernel, vsock string) string {
	return fmt.Sprintf(`{"name":%q,"spec":{"memoryBytes":67108864,"boot":{"kernel":%q},"vsock":%s}}`, name, kernel, vsock)
}

func (r *rig) vsockFolder(vm api.VM) string { return filepath.Join(r.dir, "run", "vsock", vm.ID) }

// TestCIDs: each VM with sockets has one of its own, which another may have when it is
// deleted.
func TestCIDs(t *testing.T) {
	r := newRig(t)
	for i, c := range []struct {
		vsock string
		cid   int64
	}{{"{}", 3}, {`{"cid":4}`, 4}, {`{"cid":4294967294}`, 4294967294}, {"{}", 5}} {
		name := fmt.Sprintf("vm%d", i)
		if vm := r.withVsock(name, "runs", c.vsock); vm.Spec.Vsock.CID != c.cid {
			t.Errorf("%s: CID %d, want %d", c.vsock, vm.Spec.Vsock.CID, c.cid)
		}
	}
	for vsock, code := range map[string]api.Code{
		`{"cid":2}`: api.CodeInvalidRequest, `{"cid":0}`: api.CodeInvalidRequest, `{"cid":-1}`: api.CodeInvalidRequest,
		`{"cid":4294967295}`: api.CodeInvalidRequest, `{"cid":"3"}`: api.CodeInvalidRequest, `true`: api.CodeInvalidRequest,
		`{"port":3}`: api.CodeUnknownField,
	} {
		r.refused(r.do("POST", "/v1/vms", vsockBody("bad", "runs", vsock)), 422, code)
	}
	taken := r.do("POST", "/v1/vms", vsockBody("bad", "runs", `{"cid":5}`))
	r.refused(taken, 409, api.CodeExists)
	if len(taken.problem.Errors) != 1 || taken.problem.Errors[0].Location != "body.spec.vsock.cid" {
		t.Errorf("%+v", taken.problem)
	}
	if vm := r.create("none", "runs"); vm.Spec.Vsock != nil {
		t.Errorf("sockets that nobody asked for: %+v", vm.Spec.Vsock)
	}
	r.stop()
	r.start()
	if cid := r.get("vm3").Spec.Vsock.CID; cid != 5 {
		t.Errorf("after a restart: CID %d", cid)
	}
	r.power("vm1", "powerOn")
	r.power("vm1", "powerOff")
	r.end(want[api.TaskAccepted](r, r.do("DELETE", "/v1/vms/vm1", ""), 202).Task)
	if vm := r.withVsock("next", "runs", "{}"); vm.Spec.Vsock.CID != 4 {
		t.Errorf("CID %d, want the one that became free", vm.Spec.Vsock.CID)
	}
}

// TestVsock: the host's programs reach the guest's and the other way, also after the
// daemon was killed; and the folder goes with the VM.
func TestVsock(t *testing.T) {
	r := newRig(t, "--admin-group", strconv.Itoa(os.Getgid()))
	vm := r.withVsock("a", "calls", "{}")
	dir := r.vsockFolder(vm)
	path := filepath.Join(dir, "v.sock")
	r.power("a", "powerOn")
	for what, mode := range map[string]fs.FileMode{dir: 0o770 | fs.ModeDir | fs.ModeSetgid | fs.ModeSticky, path: 0o660 | fs.ModeSocket} {
		if st, err := os.Stat(what); err != nil || st.Mode() != mode {
			t.Errorf("%s: %v, %v", what, st.Mode(), err)
		}
	}
	r.noLink(fmt.Sprint(path, "_", launchtest.CallsPort))
	for _, between := range []func(){func() {}, func() { r.kill(); r.start() }, func() { r.power("a", "powerOff"); r.power("a", "powerOn") }} {
		between()
		r.callsGuest(path)
		r.calledByGuest(path)
	}
	r.power("a", "powerOff")
	if _, err := net.Dial("unix", path); err == nil {
		t.Error("somebody listens for a guest that is off")
	}
	r.end(want[api.TaskAccepted](r, r.do("DELETE", "/v1/vms/a", ""), 202).Task)
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the folder of a VM that was deleted: %v", err)
	}
}

// noLink looks that the guest, which calls again and again, gets nowhere by a link.
func (r *rig) noLink(path string) {
	r.t.Helper()
	other := filepath.Join(r.dir, "other.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: other, Net: "unix"})
	if err != nil {
		r.t.Fatal(err)
	}
	defer l.Close()
	if err := os.Symlink(other, path); err != nil {
		r.t.Fatal(err)
	}
	l.SetDeadline(time.Now().Add(100 * time.Millisecond))
	if c, err := l.Accept(); err == nil {
		c.Close()
		r.t.Error("a link was followed")
	}
	if err := os.Remove(path); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) callsGuest(path string) {
	r.t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(c, "CONNECT %d\nhello", launchtest.EchoPort)
	in := bufio.NewReader(c)
	ok, err := in.ReadString('\n')
	if err != nil || ok != fmt.Sprintln("OK", 1<<30) {
		r.t.Fatalf("%q, %v", ok, err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(in, b); err != nil || string(b) != "hello" {
		r.t.Fatalf("%q, %v", b, err)
	}
}

func (r *rig) calledByGuest(path string) {
	r.t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fmt.Sprint(path, "_", launchtest.CallsPort), Net: "unix"})
	if err != nil {
		r.t.Fatal(err)
	}
	defer l.Close()
	l.SetDeadline(time.Now().Add(20 * time.Second))
	c, err := l.Accept()
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if text, err := io.ReadAll(c); err != nil || string(text) != launchtest.CallsText {
		r.t.Fatalf("%q, %v", text, err)
	}
}
