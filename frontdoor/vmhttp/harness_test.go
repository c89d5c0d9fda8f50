// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMain fails when a goroutine or a descriptor is left after all tests.
func TestMain(m *testing.M) {
	code := m.Run()
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	deadline := time.Now().Add(5 * time.Second)
	for runtime.NumGoroutine() > 1 && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond) // there is no event for "all gone"
	}
	if n := runtime.NumGoroutine(); n > 1 && code == 0 {
		fmt.Fprintln(os.Stderr, n, "goroutines are left")
		_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
		code = 1
	}
	if left := sockets(); left != "" && code == 0 {
		fmt.Fprintln(os.Stderr, "sockets are left:", left)
		code = 1
	}
	os.Exit(code)
}

func sockets() string {
	var left []string
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && fd.Name() > "2" && strings.HasPrefix(to, "socket:") {
			left = append(left, fd.Name())
		}
	}
	return strings.Join(left, " ")
}

// buffer collects a log.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// house is a front door that runs, with vmctld and a monitor behind it.
type house struct {
	*vmctld
	t        *testing.T
	dir      string
	url      string
	door     *door
	password string
	log      *buffer
	client   *http.Client
}

func newHouse(t *testing.T, change ...func(*options)) *house {
	t.Helper()
	h := &house{t: t, dir: t.TempDir(), log: &buffer{}}
	key := make([]byte, 32)
	rand.Read(key)
	keyFile := filepath.Join(h.dir, "key")
	if err := os.WriteFile(keyFile, key, 0o600); err != nil {
		t.Fatal(err)
	}
	h.vmctld = startVmctld(t, h.dir, key)
	o := options{frontSock: h.vmctld.path, consoleDir: h.dir, stateDir: filepath.Join(h.dir, "state"), frontKey: keyFile}
	for _, c := range change {
		c(&o)
	}
	var out bytes.Buffer
	d, err := open(t.Context(), o, slog.New(slog.NewTextHandler(h.log, nil)), &out)
	if err != nil {
		t.Fatal(err)
	}
	if m := regexp.MustCompile(`password (\S+) \(shown`).FindStringSubmatch(out.String()); m != nil {
		h.password = m[1]
	}
	h.door = d
	h.listen()
	h.client = h.browser(true)
	return h
}

func (h *house) listen() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	h.url = "https://" + ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- h.door.serveOn(ctx, []net.Listener{ln}) }()
	h.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Error(err)
		}
		if err := h.door.close(); err != nil {
			h.t.Error(err)
		}
	})
}

// browser has cookies of its own; the certificate is tested elsewhere.
func (h *house) browser(h2 bool) *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		h.t.Fatal(err)
	}
	tr := &http.Transport{ForceAttemptHTTP2: h2, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	if !h2 {
		tr.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	h.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Jar: jar, Transport: tr, Timeout: 20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// answer is a whole answer.
type answer struct {
	*http.Response
	body string
}

// code is the stable code of a problem.
func (a answer) code() string {
	var p struct{ Code, RequestID string }
	if json.Unmarshal([]byte(a.body), &p) != nil || a.Header.Get("Content-Type") != "application/problem+json" {
		return "not a problem: " + a.body
	}
	return p.Code
}

func (h *house) send(c *http.Client, method, path, body string, header http.Header) answer {
	h.t.Helper()
	r, err := http.NewRequestWithContext(h.t.Context(), method, h.url+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	for name, v := range header {
		r.Header[name] = v
	}
	res, err := c.Do(r)
	if err != nil {
		h.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return answer{res, string(text)}
}

func (h *house) get(path string) answer { h.t.Helper(); return h.send(h.client, "GET", path, "", nil) }

var jsonBody = http.Header{"Content-Type": {"application/json"}}

func (h *house) tryLogin(c *http.Client, user, password string) answer {
	h.t.Helper()
	body, err := json.Marshal(map[string]string{"user": user, "password": password})
	if err != nil {
		h.t.Fatal(err)
	}
	return h.send(c, "POST", "/auth/v1/login", string(body), jsonBody)
}

func (h *house) login() {
	h.t.Helper()
	if a := h.tryLogin(h.client, "admin", h.password); a.StatusCode != 204 {
		h.t.Fatalf("login gave %d %s", a.StatusCode, a.body)
	}
}

// until polls what happens elsewhere and tells nobody.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}
