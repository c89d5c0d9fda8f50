// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"vmctl/daemon/api"
)

// door is vmhttp: logins, and the stub's API for who is logged in.
type door struct {
	*stub
	mu    sync.Mutex
	ended []string // sessions
}

const (
	doorSecret  = "s3cret-of-the-session"
	doorAccount = "admin"
)

func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	cookie, _ := r.Cookie("__Host-vmctl")
	known := cookie != nil && cookie.Value == doorSecret
	switch {
	case r.URL.Path == "/auth/v1/login":
		var in struct{ User, Password string }
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			d.t.Error(err)
		}
		if in.User != doorAccount || in.Password != "pass word" {
			refuse(w, 401, api.CodeUnauthenticated, "wrong user or password")
			return
		}
		http.SetCookie(w, &http.Cookie{Name: "__Host-vmctl", Value: doorSecret, Path: "/", Secure: true})
		w.WriteHeader(http.StatusNoContent)
	case r.URL.Path == "/auth/v1/logout":
		d.mu.Lock()
		defer d.mu.Unlock()
		d.ended = append(d.ended, cookie.Value)
		w.WriteHeader(http.StatusNoContent)
	case !known:
		refuse(w, 401, api.CodeSessionUnknown, "the session ended")
	case r.URL.Path == "/auth/v1/session":
		answer(w, 200, map[string]any{"user": doorAccount, "groups": []string{}, "expiresAt": epoch.Add(8 * time.Hour)})
	default:
		d.stub.ServeHTTP(w, r)
	}
}

func loginFile(t *testing.T, u *user) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(u.env["HOME"], ".config/vmctl/*.login"))
	if err != nil || len(files) != 1 {
		t.Fatalf("login files %v, %v", files, err)
	}
	return files[0]
}

func TestLoginIsKeptAndUsed(t *testing.T) {
	d := &door{stub: newStub(t)}
	srv, print := onTLS(t, d)
	u := newUser(t, "VMCTL_SERVER", srv.URL)

	_, errOut, status := u.run("vm", "list")
	if status != 5 || !strings.Contains(errOut, "not logged in at "+srv.URL+"; run: vmctl login --server "+srv.URL) {
		t.Errorf("before the login: status %d, %q", status, errOut)
	}
	u.in = "pass word\n"
	out, errOut, status := u.run("login", "--user", doorAccount, "--fingerprint", print)
	if status != 0 || errOut != "" || out != "logged in at "+srv.URL+" as admin until 2026-11-24 20:00:00\n" {
		t.Fatalf("login: status %d, %q, %q", status, out, errOut)
	}
	file := loginFile(t, u)
	for path, want := range map[string]fs.FileMode{file: 0o600, filepath.Dir(file): 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, %v", path, info.Mode(), err)
		}
	}
	if out, errOut, status := u.run("vm", "list"); status != 0 || !strings.Contains(out, "web") {
		t.Errorf("after the login: status %d, %q, %q", status, out, errOut)
	}
	if _, errOut, status := u.run("logout"); status != 0 || len(d.ended) != 1 || d.ended[0] != doorSecret {
		t.Errorf("logout: status %d, %q, ended %v", status, errOut, d.ended)
	}
	if text, err := os.ReadFile(file); err != nil || strings.Contains(string(text), doorSecret) || !strings.Contains(string(text), "fingerprint") {
		t.Errorf("after the logout %s is kept, %v", text, err)
	}
	if _, _, status := u.run("vm", "list"); status != 5 {
		t.Errorf("after the logout: status %d", status)
	}
	u.in = "pass word\n" // the pin of the first login is still known
	if _, errOut, status := u.run("login", "-u", doorAccount); status != 0 {
		t.Errorf("second login: %q", errOut)
	}
	if _, errOut, status := u.run("logout", "--forget"); status != 0 {
		t.Errorf("logout --forget: %q", errOut)
	}
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after logout --forget: %v", err)
	}
	if left, _ := os.ReadDir(filepath.Dir(file)); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestLoginIsRefused(t *testing.T) {
	srv, print := onTLS(t, &door{stub: newStub(t)})
	cases := []struct {
		name, in string
		args     []string
		status   int
		want     string
	}{
		{"wrong password", "wrong\n", []string{"-u", "admin", "--fingerprint", print}, 5, "vmctl: login: wrong user or password (unauthenticated, request r-1)\n"},
		{"no password", "", []string{"-u", "admin", "--fingerprint", print}, 1, "read password: no answer"},
		{"endless password", strings.Repeat("x", 2000), []string{"-u", "admin", "--fingerprint", print}, 1, "too long"},
		{"nobody to confirm", "pass word\n", []string{"-u", "admin"}, 1, "give it with --fingerprint"},
		{"no user", "pass word\n", []string{"--fingerprint", print}, 2, "--user"},
		{"half a fingerprint", "pass word\n", []string{"-u", "admin", "--fingerprint", "ab"}, 2, "64 hexadecimal digits"},
		{"http", "", []string{"--server", "http://h"}, 2, "must begin with https://"},
		{"another certificate", "pass word\n", []string{"-u", "admin", "--fingerprint", strings.Repeat("00", 32)}, 1, "nothing was sent"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			u := newUser(t, "VMCTL_SERVER", srv.URL)
			u.in = c.in
			out, errOut, status := u.run(append([]string{"login"}, c.args...)...)
			if status != c.status || !strings.Contains(errOut, c.want) || out != "" {
				t.Errorf("status %d, %q", status, errOut)
			}
			if files, _ := filepath.Glob(filepath.Join(u.env["HOME"], ".config/vmctl/*")); len(files) != 0 {
				t.Errorf("kept %v", files)
			}
		})
	}
}

// TestChangedCertificate: what answers at the address of a kept login has
// another certificate. Neither session nor password may reach it.
func TestChangedCertificate(t *testing.T) {
	srv, _ := onTLS(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request came through") }))
	u := newUser(t, "VMCTL_SERVER", srv.URL)
	l := logins{filepath.Join(u.env["HOME"], ".config/vmctl")}
	kept := login{Server: srv.URL, Session: doorSecret, Fingerprint: strings.Repeat("11", 32)}
	if err := l.save(kept); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"vm", "on", "web"}, {"login", "-u", "admin"}, {"logout"}} {
		u.in = "pass word\n"
		_, errOut, status := u.run(args...)
		if status != 1 || !strings.Contains(errOut, "not the pinned one") || !strings.Contains(errOut, "--fingerprint") || strings.Count(errOut, "\n") != 1 {
			t.Errorf("%v: status %d, %q", args, status, errOut)
		}
	}
	if now, err := l.load(srv.URL); err != nil || now.Fingerprint != kept.Fingerprint || now.Session != kept.Session {
		t.Errorf("the kept login became %+v, %v", now, err)
	}
}

func TestEndedSession(t *testing.T) {
	srv, print := onTLS(t, &door{stub: newStub(t)})
	u := newUser(t, "VMCTL_SERVER", srv.URL)
	l := logins{filepath.Join(u.env["HOME"], ".config/vmctl")}
	if err := l.save(login{Server: srv.URL, Session: "old", Fingerprint: print}); err != nil {
		t.Fatal(err)
	}
	_, errOut, status := u.run("vm", "list")
	if status != 5 || !strings.Contains(errOut, "(sessionUnknown, request r-1); to log in again, run: vmctl login --server "+srv.URL) {
		t.Errorf("status %d, %q", status, errOut)
	}
}

func TestWidePermissionsAreRefused(t *testing.T) {
	const server = "https://h:8443"
	cases := []struct {
		name  string
		spoil func(l logins) error
		want  string
	}{
		{"file for the group", func(l logins) error { return os.Chmod(l.path(server), 0o640) }, "mode 0640"},
		{"file for all", func(l logins) error { return os.Chmod(l.path(server), 0o604) }, "mode 0604"},
		{"folder for all", func(l logins) error { return os.Chmod(l.dir, 0o701) }, "mode 0701"},
		{"symbolic link", func(l logins) error {
			if err := os.Rename(l.path(server), l.path(server)+".x"); err != nil {
				return err
			}
			return os.Symlink(l.path(server)+".x", l.path(server))
		}, "too many levels"},
		{"folder in its place", func(l logins) error {
			if err := os.Remove(l.path(server)); err != nil {
				return err
			}
			return os.Mkdir(l.path(server), 0o700)
		}, "not a plain file"},
		{"another server's", func(l logins) error {
			return os.Rename(l.path(server), l.path("https://other"))
		}, "not a login for https://other"},
		{"no JSON", func(l logins) error { return os.WriteFile(l.path(server), []byte("{"), 0o600) }, "not a login"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			l := logins{filepath.Join(t.TempDir(), "a/vmctl")}
			if err := l.save(login{Server: server, Session: "s"}); err != nil {
				t.Fatal(err)
			}
			if kept, err := l.load(server); err != nil || kept.Session != "s" {
				t.Fatalf("load gave %v, %v", kept, err)
			}
			if err := c.spoil(l); err != nil {
				t.Fatal(err)
			}
			ask := server
			if c.name == "another server's" {
				ask = "https://other"
			}
			if _, err := l.load(ask); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("load gave %v, want %q", err, c.want)
			}
		})
	}
}

func TestAnotherUsersFile(t *testing.T) {
	path := "/etc/passwd" // root's
	if os.Geteuid() == 0 {
		path = filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, 12345, 0); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := owned(path, info, 0); err == nil || !strings.Contains(err.Error(), "belongs to another user") {
		t.Errorf("owned gave %v", err)
	}
}

func TestLoginsOfServersAreApart(t *testing.T) {
	l := logins{filepath.Join(t.TempDir(), "vmctl")}
	servers := []string{"https://h", "https://h:8443", "https://[::1]:8443", "https://h2"}
	for _, s := range servers {
		if err := l.save(login{Server: s, Session: s}); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range servers {
		if kept, err := l.load(s); err != nil || kept.Session != s {
			t.Errorf("%s: %v, %v", s, kept, err)
		}
	}
	if _, err := l.load("https://none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a server that is not known gave %v", err)
	}
	if err := (logins{}).save(login{Server: "https://h"}); !errors.Is(err, errNoHome) {
		t.Errorf("without a home: %v", err)
	}
}
