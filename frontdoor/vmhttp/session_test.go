// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"vmctl/frontdoor/login"
)

func TestLogin(t *testing.T) {
	h := newHouse(t)
	if a := h.get("/auth/v1/session"); a.StatusCode != 401 || a.code() != "unauthenticated" {
		t.Errorf("before login: %d %s", a.StatusCode, a.code())
	}
	a := h.tryLogin(h.client, "admin", h.password)
	if a.StatusCode != 204 {
		t.Fatalf("login: %d %s", a.StatusCode, a.body)
	}
	set := a.Header.Get("Set-Cookie")
	c := a.Cookies()[0]
	if c.Name != "__Host-vmctl" || !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" ||
		c.MaxAge != 86400 || len(c.Value) != 43 {
		t.Errorf("cookie is %s", set)
	}
	var s struct {
		User, Principal string
		Groups          []string
		ExpiresAt       string
	}
	if err := json.Unmarshal([]byte(h.get("/auth/v1/session").body), &s); err != nil || s.User != "admin" || s.Principal != "local:admin" || s.Groups == nil || s.ExpiresAt == "" {
		t.Errorf("session is %+v, %v", s, err)
	}
	if len(h.live()) != 1 {
		t.Errorf("vmctld knows %v", h.live())
	}
	if strings.Contains(h.log.String(), h.password) || strings.Contains(h.log.String(), c.Value) {
		t.Error("a secret is in the log")
	}
	a = h.send(h.client, "POST", "/auth/v1/logout", "", nil)
	if a.StatusCode != 204 || a.Cookies()[0].MaxAge != -1 {
		t.Errorf("logout: %d %s", a.StatusCode, a.Header.Get("Set-Cookie"))
	}
	if len(h.live()) != 0 {
		t.Errorf("vmctld still knows %v", h.live())
	}
	r := http.Header{"Cookie": {"__Host-vmctl=" + c.Value}}
	if a := h.send(h.client, "GET", "/auth/v1/session", "", r); a.StatusCode != 401 {
		t.Errorf("old cookie after logout: %d", a.StatusCode)
	}
}

func TestLoginRefused(t *testing.T) {
	h := newHouse(t)
	wrong := h.tryLogin(h.browser(true), "admin", "wrong")
	unknown := h.tryLogin(h.browser(true), "nobody", "wrong")
	if wrong.StatusCode != 401 || wrong.code() != "unauthenticated" || len(wrong.Cookies()) != 0 {
		t.Errorf("wrong password: %d %s", wrong.StatusCode, wrong.body)
	}
	id := func(a answer) string { return strings.ReplaceAll(a.body, a.Header.Get("X-Request-Id"), "") }
	if unknown.StatusCode != 401 || id(unknown) != id(wrong) {
		t.Errorf("unknown user is told apart: %s / %s", unknown.body, wrong.body)
	}
	for name, tc := range map[string]struct {
		body   string
		header http.Header
		status int
		code   string
	}{
		"not JSON":      {"user=admin", jsonBody, 400, "invalidRequest"},
		"form":          {"user=admin&password=x", http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, 415, "invalidRequest"},
		"unknown field": {`{"user":"a","password":"b","role":"admin"}`, jsonBody, 422, "unknownField"},
		"two values":    {`{"user":"a","password":"b"}{}`, jsonBody, 400, "invalidRequest"},
		"empty":         {`{}`, jsonBody, 422, "invalidRequest"},
		"large":         {`{"user":"` + strings.Repeat("a", 5000) + `"}`, jsonBody, 413, "tooLarge"},
		"other origin": {`{"user":"a","password":"b"}`, http.Header{"Content-Type": {"application/json"}, "Origin": {"https://evil.example"}},
			403, "originRefused"},
		"cross site": {`{"user":"a","password":"b"}`, http.Header{"Content-Type": {"application/json"}, "Sec-Fetch-Site": {"cross-site"}},
			403, "originRefused"},
	} {
		if a := h.send(h.client, "POST", "/auth/v1/login", tc.body, tc.header); a.StatusCode != tc.status || a.code() != tc.code {
			t.Errorf("%s: %d %s, want %d %s", name, a.StatusCode, a.code(), tc.status, tc.code)
		}
	}
	if a := h.get("/auth/v1/login"); a.StatusCode != 405 || a.Header.Get("Allow") != "POST" {
		t.Errorf("GET login: %d", a.StatusCode)
	}
	if a := h.get("/auth/v1/nothing"); a.StatusCode != 404 || a.code() != "notFound" {
		t.Errorf("no such path: %d %s", a.StatusCode, a.body)
	}
}

// After five wrong passwords from here not even the right one is checked.
func TestLoginLimit(t *testing.T) {
	h := newHouse(t)
	for range 5 {
		if a := h.tryLogin(h.client, "admin", "wrong"); a.StatusCode != 401 {
			t.Fatalf("wrong password: %d", a.StatusCode)
		}
	}
	a := h.tryLogin(h.client, "admin", h.password)
	if a.StatusCode != 429 || a.code() != "limitExceeded" || a.Header.Get("Retry-After") == "" {
		t.Errorf("sixth attempt: %d %s, Retry-After %q", a.StatusCode, a.code(), a.Header.Get("Retry-After"))
	}
}

func TestSessionsListAndRevoke(t *testing.T) {
	h := newHouse(t)
	h.login()
	other := h.browser(true)
	if a := h.tryLogin(other, "admin", h.password); a.StatusCode != 204 {
		t.Fatal(a.body)
	}
	var list struct {
		Items []struct {
			ID      string
			Current bool
		}
	}
	if err := json.Unmarshal([]byte(h.get("/auth/v1/sessions").body), &list); err != nil || len(list.Items) != 2 {
		t.Fatalf("%+v %v", list, err)
	}
	for _, s := range list.Items {
		if !s.Current {
			if a := h.send(h.client, "DELETE", "/auth/v1/sessions/"+s.ID, "", nil); a.StatusCode != 204 {
				t.Errorf("revoke: %d", a.StatusCode)
			}
		}
	}
	if a := h.send(other, "GET", "/api/v1/vms", "", nil); a.StatusCode != 401 || a.code() != "unauthenticated" {
		t.Errorf("revoked session: %d", a.StatusCode)
	}
	if a := h.get("/api/v1/vms"); a.StatusCode != 200 {
		t.Errorf("own session: %d", a.StatusCode)
	}
	if a := h.send(h.client, "DELETE", "/auth/v1/sessions/none", "", nil); a.StatusCode != 404 {
		t.Errorf("no such session: %d", a.StatusCode)
	}
}

// A new login ends the session that the browser had.
func TestLoginRotates(t *testing.T) {
	h := newHouse(t)
	h.login()
	first := h.live()
	h.login()
	if now := h.live(); len(now) != 1 || reflect.DeepEqual(first, now) {
		t.Errorf("vmctld knows %v, before %v", now, first)
	}
}

// The password changed in another process: requests fail at once, and what
// runs in the session ends.
func TestPasswdEndsSessions(t *testing.T) {
	h := newHouse(t)
	h.login()
	res, err := h.client.Get(h.url + "/api/v1/events")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if line, err := bufio.NewReader(res.Body).ReadString('\n'); err != nil || line != "id: 1\n" {
		t.Fatalf("event is %q, %v", line, err)
	}
	in := filepath.Join(t.TempDir(), "in")
	if err := os.WriteFile(in, []byte("a new password\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(in)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := passwd(t.Context(), []string{"--state-dir", h.door.options.stateDir, "admin"}, terminal{f, io.Discard}); err != nil {
		t.Fatal(err)
	}
	if a := h.get("/api/v1/vms"); a.StatusCode != 401 {
		t.Errorf("old session: %d", a.StatusCode)
	}
	h.door.keeper.Sweep(t.Context())
	if _, err := io.ReadAll(res.Body); err != nil && strings.Contains(err.Error(), "Timeout") {
		t.Errorf("stream goes on: %v", err)
	}
	if len(h.live()) != 0 {
		t.Errorf("vmctld still knows %v", h.live())
	}
	if a := h.tryLogin(h.client, "admin", "a new password"); a.StatusCode != 204 {
		t.Errorf("new password: %d %s", a.StatusCode, a.body)
	}
}

func TestPasswdRefuses(t *testing.T) {
	h := newHouse(t)
	state := h.door.options.stateDir
	for _, tc := range []struct {
		name string
		args []string
		want error
	}{
		{"no account", []string{"--state-dir", state, "--generate", "ann"}, login.ErrNoAccount},
		{"odd name", []string{"--state-dir", state, "--generate", "Ann!"}, login.ErrName},
		{"no state", []string{"--state-dir", filepath.Join(state, "none"), "--generate", "admin"}, os.ErrNotExist},
		{"create works", []string{"--state-dir", state, "--generate", "--create", "ann"}, nil},
	} {
		if err := passwd(t.Context(), tc.args, terminal{nil, io.Discard}); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

func TestFirstPasswordFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "first")
	h := newHouse(t, func(o *options) { o.firstPasswordFile = file })
	if h.password != "" {
		t.Error("the password was printed too")
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", info, err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if a := h.tryLogin(h.client, "admin", strings.TrimSpace(string(text))); a.StatusCode != 204 {
		t.Errorf("first password: %d", a.StatusCode)
	}
}

func TestTLS(t *testing.T) {
	h := newHouse(t)
	addr := strings.TrimPrefix(h.url, "https://")
	for version, ok := range map[uint16]bool{tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version})
		if (err == nil) != ok {
			t.Errorf("TLS %x: %v", version, err)
		}
		if c != nil {
			c.Close()
		}
	}
	if a := h.get("/"); a.ProtoMajor != 2 || a.StatusCode != 302 || a.Header.Get("Location") != "/ui/" {
		t.Errorf("/ is %s %d to %s", a.Proto, a.StatusCode, a.Header.Get("Location"))
	}
	if a := h.send(h.browser(false), "GET", "/", "", nil); a.ProtoMajor != 1 {
		t.Errorf("HTTP/1.1 gives %s", a.Proto)
	}
}

func TestHeaders(t *testing.T) {
	h := newHouse(t)
	for _, path := range []string{"/", "/ui/", "/api/v1/vms", "/auth/v1/session", "/nothing", "/console/web"} {
		a := h.get(path)
		csp := a.Header.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'self'", "script-src 'self';", "frame-ancestors 'none'", "object-src 'none'", "base-uri 'none'"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: policy %q has no %s", path, csp, want)
			}
		}
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
			"Strict-Transport-Security": "max-age=31536000", "Cross-Origin-Resource-Policy": "same-origin"} {
			if got := a.Header.Values(name); len(got) != 1 || got[0] != want {
				t.Errorf("%s: %s is %q", path, name, got)
			}
		}
		if a.Header.Get("X-Request-Id") == "" {
			t.Errorf("%s: no request id", path)
		}
	}
}
