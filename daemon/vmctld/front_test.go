// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"vmctl/daemon/api"
	"vmctl/frontdoor/sign"
)

const session = "session-0123456789abcdef"

// front is a front door: it signs what it sends.
type front struct {
	*rig
	signer *sign.Signer
	http   *http.Client
}

func newFront(t *testing.T, args ...string) *front {
	t.Helper()
	key := make([]byte, sign.KeySize)
	rand.Read(key)
	file := filepath.Join(t.TempDir(), "front-key")
	if err := os.WriteFile(file, key, 0o600); err != nil {
		t.Fatal(err)
	}
	f := &front{rig: newRig(t, append([]string{"--front-key", file, "--vmhttp-user", strconv.Itoa(os.Getuid())}, args...)...)}
	f.http = &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(f.dir, "run", "front.sock"))
		}}}
	var err error
	if f.signer, err = sign.NewSigner(key, time.Now); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *front) request(id *sign.Identity, method, path, body string) *http.Request {
	f.t.Helper()
	req, err := http.NewRequest(method, "http://vmctld"+path, bytes.NewReader([]byte(body)))
	if err != nil {
		f.t.Fatal(err)
	}
	if id != nil {
		if err := f.signer.Sign(req, []byte(body), *id); err != nil {
			f.t.Fatal(err)
		}
	}
	return req
}

func (f *front) send(req *http.Request) reply {
	f.t.Helper()
	resp, err := f.http.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	return f.read(resp)
}

func (f *front) as(id *sign.Identity, method, path, body string) reply {
	f.t.Helper()
	return f.send(f.request(id, method, path, body))
}

// login registers a session as vmhttp does.
func (f *front) login(id, principal string) *sign.Identity {
	f.t.Helper()
	got := f.as(&sign.Identity{User: "service:vmhttp"}, "PUT", "/v1/sessions/"+id, fmt.Sprintf(
		`{"principal":%q,"groups":[],"expiresAt":%q,"address":"192.0.2.1"}`, principal, time.Now().Add(time.Hour).Format(time.RFC3339)))
	if got.status != 204 {
		f.t.Fatalf("login: %d %s", got.status, got.body)
	}
	return &sign.Identity{User: principal, Session: id, Address: "192.0.2.1"}
}

func TestFrontRefuses(t *testing.T) {
	f := newFront(t, "--grant", "local:admin=admin")
	admin := f.login(session, "local:admin")
	f.create("a", "runs")
	before := want[api.VMList](f.rig, f.as(admin, "GET", "/v1/vms", ""), 200)

	f.refused(f.as(nil, "GET", "/v1/vms", ""), 401, api.CodeSignatureMissing)
	tampered := f.request(admin, "GET", "/v1/vms", "")
	tampered.URL.RawQuery = "limit=1"
	f.refused(f.send(tampered), 401, api.CodeSignatureInvalid)
	other := f.request(admin, "POST", "/v1/vms/a:powerOn", "")
	other.Method = "DELETE"
	f.refused(f.send(other), 401, api.CodeSignatureInvalid)
	body := f.request(admin, "POST", "/v1/vms", `{"name":"b"}`)
	body.Body = http.NoBody
	body.ContentLength = 0
	f.refused(f.send(body), 401, api.CodeSignatureInvalid)
	user := f.request(&sign.Identity{User: "local:bob", Session: session}, "GET", "/v1/vms", "")
	user.Header.Set("Vmctl-User", "local:admin")
	f.refused(f.send(user), 401, api.CodeSignatureInvalid)
	twice := f.request(admin, "GET", "/v1/vms", "")
	again := twice.Clone(context.Background())
	want[api.VMList](f.rig, f.send(twice), 200)
	f.refused(f.send(again), 401, api.CodeSignatureReplayed)
	past, err := sign.NewSigner(mustKey(t, f), func() time.Time { return time.Now().Add(-2 * time.Minute) })
	if err != nil {
		t.Fatal(err)
	}
	old := f.request(nil, "GET", "/v1/vms", "")
	if err := past.Sign(old, nil, *admin); err != nil {
		t.Fatal(err)
	}
	f.refused(f.send(old), 401, api.CodeSignatureStale)

	for what, id := range map[string]*sign.Identity{
		"the superuser":    {User: "unix:0", Session: session},
		"a group of unix":  {User: "local:admin", Session: session, Groups: []string{"unix-group:vmctl-admin"}},
		"no kind of user":  {User: "admin", Session: session},
		"a fake service":   {User: "service:vmhttp", Session: session},
		"another service":  {User: "service:root", Session: session},
		"an empty local":   {User: "local:", Session: session},
		"service, grouped": {User: "service:vmhttp", Groups: []string{"local-group:x"}},
	} {
		t.Run(what, func(t *testing.T) { f.refused(f.as(id, "GET", "/v1/vms", ""), 401, api.CodeSignatureInvalid) })
	}
	f.refused(f.as(&sign.Identity{User: "local:admin"}, "GET", "/v1/vms", ""), 401, api.CodeSessionUnknown)
	f.refused(f.as(&sign.Identity{User: "local:admin", Session: "another-0123456789"}, "GET", "/v1/vms", ""), 401, api.CodeSessionUnknown)
	f.refused(f.as(&sign.Identity{User: "local:bob", Session: session}, "GET", "/v1/vms", ""), 401, api.CodeSessionUnknown)
	f.refused(f.as(&sign.Identity{User: "service:vmhttp"}, "GET", "/v1/vms", ""), 403, api.CodeForbidden)
	f.refused(f.as(admin, "PUT", "/v1/sessions/0123456789abcdef", `{"principal":"local:a","expiresAt":"2030-01-01T00:00:00Z"}`), 403, api.CodeForbidden)

	after := want[api.VMList](f.rig, f.as(admin, "GET", "/v1/vms", ""), 200)
	if len(after.Items) != len(before.Items) || len(f.runs()) != 0 {
		t.Errorf("something was made")
	}
	w := f.watch("?since=0")
	if d := data[api.RefusedData](f.rig, w.await(api.EventAuthRefused, "")); d.Code != api.CodeSignatureMissing || d.Path != "/v1/vms" || d.PeerUID != int64(os.Getuid()) {
		t.Errorf("event %+v", d)
	}
}

func mustKey(t *testing.T, f *front) []byte {
	t.Helper()
	for i, a := range f.args {
		if a == "--front-key" {
			key, err := sign.ReadKey(f.args[i+1])
			if err != nil {
				t.Fatal(err)
			}
			return key
		}
	}
	t.Fatal("no key")
	return nil
}

// TestFrontForeignPeer: only vmhttp's user may connect, whatever it signs.
func TestFrontForeignPeer(t *testing.T) {
	f := newFront(t, "--vmhttp-user", strconv.Itoa(os.Getuid()+1))
	f.refused(f.as(&sign.Identity{User: "service:vmhttp"}, "GET", "/v1", ""), 403, api.CodeForbidden)
}

// TestSession: what ends with it, and what outlives a restart.
func TestSession(t *testing.T) {
	f := newFront(t, "--grant", "local:admin=admin")
	admin := f.login(session, "local:admin")
	service := &sign.Identity{User: "service:vmhttp"}
	who := want[api.WhoAmI](f.rig, f.as(admin, "GET", "/v1/whoami", ""), 200)
	if who.Principal != "local:admin" || who.Session != session || len(who.Roles) != 3 {
		t.Errorf("whoami %+v", who)
	}
	f.refused(f.as(service, "PUT", "/v1/sessions/"+session, `{"principal":"local:bob","expiresAt":"`+time.Now().Add(time.Minute).Format(time.RFC3339)+`"}`), 409, api.CodeConflict)
	f.refused(f.as(service, "PUT", "/v1/sessions/"+session+"x", `{"principal":"unix:0","expiresAt":"`+time.Now().Add(time.Minute).Format(time.RFC3339)+`"}`), 422, api.CodeInvalidRequest)
	f.refused(f.as(service, "PUT", "/v1/sessions/"+session+"x", `{"principal":"local:a","expiresAt":"2020-01-01T00:00:00Z"}`), 422, api.CodeInvalidRequest)
	f.kill()
	f.start()
	want[api.VMList](f.rig, f.as(admin, "GET", "/v1/vms", ""), 200)
	resp, err := f.http.Do(f.request(admin, "GET", "/v1/events", ""))
	if err != nil {
		t.Fatal(err)
	}
	w := f.stream(resp)
	if got := f.as(service, "DELETE", "/v1/sessions/"+session, ""); got.status != 204 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	for {
		raw, ok := w.next()
		if !ok {
			t.Fatal("stream ended without a word")
		}
		if raw.event == "dropped" {
			break
		}
	}
	f.refused(f.as(admin, "GET", "/v1/vms", ""), 401, api.CodeSessionUnknown)
	if got := f.as(service, "DELETE", "/v1/sessions/"+session, ""); got.status != 204 {
		t.Errorf("a second end: %d", got.status)
	}
}

// TestRoles: what each role sees and may do, through the socket.
func TestRoles(t *testing.T) {
	f := newFront(t, "--grant", "local:view=viewer", "--grant", "local:op=operator")
	v := f.create("a", "runs")
	view, op, none := f.login(session+"v", "local:view"), f.login(session+"o", "local:op"), f.login(session+"n", "local:none")
	create := `{"name":"b","spec":{"boot":{"kernel":"runs"}}}`
	want[api.VM](f.rig, f.as(view, "GET", "/v1/vms/a", ""), 200)
	f.refused(f.as(view, "POST", "/v1/vms/a:powerOn", ""), 403, api.CodeForbidden)
	f.refused(f.as(view, "POST", "/v1/vms/a:consoleToken", ""), 403, api.CodeForbidden)
	f.refused(f.as(view, "POST", "/v1/vms", create), 403, api.CodeForbidden)
	f.refused(f.as(op, "POST", "/v1/vms", create), 403, api.CodeForbidden)
	f.refused(f.as(op, "DELETE", "/v1/vms/a", ""), 403, api.CodeForbidden)
	task := want[api.TaskAccepted](f.rig, f.as(op, "POST", "/v1/vms/a:powerOn", ""), 202).Task
	if task.Actor != "local:op" {
		t.Errorf("actor %s", task.Actor)
	}
	f.end(task)
	// No grant: what exists and what does not look the same.
	f.refused(f.as(none, "GET", "/v1/vms/"+v.ID, ""), 404, api.CodeNotFound)
	f.refused(f.as(none, "POST", "/v1/vms/a:powerOff", ""), 404, api.CodeNotFound)
	for _, path := range []string{"/v1/vms", "/v1/tasks", "/v1/tasks/" + task.ID, "/v1/events", "/v1/host"} {
		f.refused(f.as(none, "GET", path, ""), 403, api.CodeForbidden)
	}
	// A viewer's stream has no events about other people's logins.
	resp, err := f.http.Do(f.request(view, "GET", "/v1/events?since=0", ""))
	if err != nil {
		t.Fatal(err)
	}
	for w := f.stream(resp); ; {
		raw, _ := w.next()
		if raw.event == string(api.EventSessionStarted) || raw.event == string(api.EventAuthRefused) {
			t.Errorf("a viewer sees %s", raw.data)
		}
		if raw.event == string(api.EventTaskChanged) && bytes.Contains(raw.data, []byte("succeeded")) {
			break
		}
	}
}
