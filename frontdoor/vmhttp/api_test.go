// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"vmctl/frontdoor/sign"
)

func (h *house) seen(a answer) seen {
	h.t.Helper()
	var s seen
	if err := json.Unmarshal([]byte(a.body), &s); err != nil {
		h.t.Fatalf("%d %s: %v", a.StatusCode, a.body, err)
	}
	return s
}

func TestProxy(t *testing.T) {
	h := newHouse(t)
	if a := h.get("/api/v1/vms"); a.StatusCode != 401 || a.code() != "unauthenticated" {
		t.Errorf("without login: %d %s", a.StatusCode, a.body)
	}
	h.login()
	for path, want := range map[string]string{
		"/api/v1":                          "/v1",
		"/api/v1/vms?limit=2&cursor=a%2Fb": "/v1/vms?limit=2&cursor=a%2Fb",
		"/api/v1/vms?a=1;b=2":              "/v1/vms?a=1;b=2",
		"/api/v1/vms/web:powerOn":          "/v1/vms/web:powerOn",
		"/api/v1/vms/web%3ApowerOn":        "/v1/vms/web%3ApowerOn",
		"/api/v1/vms/a%2Fb":                "/v1/vms/a%2Fb",
		"/api/v1/vms?":                     "/v1/vms?",
	} {
		s := h.seen(h.send(h.client, "POST", path, `{"a":1}`, http.Header{"Idempotency-Key": {"k"}, "X-Request-Id": {"my-id.1"}}))
		if s.URI != want || s.Method != "POST" || s.Body != `{"a":1}` {
			t.Errorf("%s arrived as %s %s %s", path, s.Method, s.URI, s.Body)
		}
		if s.Identity.User != "local:admin" || s.Identity.Address != "127.0.0.1" || len(s.Identity.Groups) != 0 || s.Identity.Session != h.live()[0] {
			t.Errorf("%s arrived as %+v", path, s.Identity)
		}
		if s.Header.Get("Idempotency-Key") != "k" || s.Header.Get("X-Request-Id") != "my-id.1" {
			t.Errorf("%s: headers are %v", path, s.Header)
		}
		for _, never := range []string{"Cookie", "Authorization", "X-Forwarded-For", "Origin"} {
			if s.Header[never] != nil {
				t.Errorf("%s: %s arrived", path, never)
			}
		}
	}
	if a := h.send(h.client, "TRACE", "/api/v1/vms", "", nil); a.StatusCode != 405 || a.code() != "methodNotAllowed" {
		t.Errorf("TRACE: %d", a.StatusCode)
	}
	for _, path := range []string{"/api/v2/vms", "/api/", "/%61pi/v1/a%2Fb"} {
		if a := h.get(path); a.StatusCode != 404 || a.code() != "notFound" {
			t.Errorf("%s: %d", path, a.StatusCode)
		}
	}
	if a := h.get("/api/v1/../sessions"); a.StatusCode < 300 || a.StatusCode > 404 {
		t.Errorf("dots: %d", a.StatusCode)
	}
	if len(h.refused) > 0 {
		t.Errorf("vmctld refused %v", h.refused)
	}
}

// A page of another origin cannot change anything, and what vmctld answers
// cannot undo what the front door says.
func TestProxyEdges(t *testing.T) {
	h := newHouse(t)
	h.login()
	for name, header := range map[string]http.Header{
		"origin": {"Origin": {"https://evil.example"}}, "null": {"Origin": {"null"}}, "site": {"Sec-Fetch-Site": {"same-site"}},
	} {
		if a := h.send(h.client, "POST", "/api/v1/vms", "{}", header); a.StatusCode != 403 || a.code() != "originRefused" {
			t.Errorf("%s: %d %s", name, a.StatusCode, a.body)
		}
	}
	if a := h.send(h.client, "POST", "/api/v1/vms", "{}", http.Header{"Origin": {h.url}, "Sec-Fetch-Site": {"same-origin"}}); a.StatusCode != 200 {
		t.Errorf("our own origin: %d", a.StatusCode)
	}
	a := h.send(h.client, "POST", "/api/v1/made", "{}", nil)
	if a.StatusCode != 201 || a.Header.Get("Location") != "/api/v1/vms/x" || len(a.Cookies()) > 0 || a.Header.Get("Access-Control-Allow-Origin") != "" ||
		!strings.HasPrefix(a.Header.Get("Content-Security-Policy"), "default-src 'self'") || len(a.Header.Values("Content-Security-Policy")) != 1 {
		t.Errorf("answer is %d %v", a.StatusCode, a.Header)
	}
	for _, bad := range []string{"a b", strings.Repeat("x", 65), "<script>"} {
		if got := h.send(h.client, "GET", "/api/v1/vms", "", http.Header{"X-Request-Id": {bad}}).Header.Get("X-Request-Id"); got == bad || got == "" {
			t.Errorf("request id is %q", got)
		}
	}
}

// raw sends bytes as they are over TLS and reads one answer.
func (h *house) raw(request string) (*http.Response, string) {
	h.t.Helper()
	c, err := tls.Dial("tcp", strings.TrimPrefix(h.url, "https://"), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		h.t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, request); err != nil {
		h.t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		h.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return res, string(body)
}

// Whatever a browser claims about itself, in whatever spelling: it arrives as
// who it is, and nothing of the claim arrives.
func TestIdentityHeaders(t *testing.T) {
	h := newHouse(t)
	h.login()
	cookie := h.client.Jar.Cookies(mustURL(t, h.url))[0]
	claims := []string{"X-User", "x-user", "X_User", "x_USER", "X-User-Groups", "X_Forwarded_User", "X-Remote-User", "Remote-User", "Vmctl-User", "vmctl-user",
		"Vmctl_User", "VMCTL-GROUPS", "Vmctl-Session", "Vmctl-Address", "Signature", "signature-input", "Signature_Input", "Content-Digest", "X-Forwarded-For",
		"Forwarded", "X-Real-IP", "Via"}
	for _, name := range claims {
		for _, connection := range []string{"close", "close, " + name, name + ", keep-alive, close", "close, vmctl-user, signature, signature-input, content-digest"} {
			res, body := h.raw(fmt.Sprintf("GET /api/v1/whoami HTTP/1.1\r\nHost: x\r\nCookie: %s=%s\r\n%s: local:root\r\n%s: unix:0\r\nConnection: %s\r\n\r\n",
				cookie.Name, cookie.Value, name, strings.ToUpper(name), connection))
			if res.StatusCode != 200 {
				t.Errorf("%s with Connection %s: %d %s", name, connection, res.StatusCode, body)
				continue
			}
			s := h.seen(answer{res, body})
			if s.Identity.User != "local:admin" || s.Identity.Address != "127.0.0.1" || strings.Contains(body, "local:root") || strings.Contains(body, "unix:0") {
				t.Errorf("%s with Connection %s arrived: %s", name, connection, body)
			}
		}
		res, _ := h.raw(fmt.Sprintf("GET /api/v1/whoami HTTP/1.1\r\nHost: x\r\n%s: local:admin\r\nConnection: close\r\n\r\n", name))
		if res.StatusCode != 401 {
			t.Errorf("%s alone logs in: %d", name, res.StatusCode)
		}
	}
	if len(h.refused) > 0 {
		t.Errorf("vmctld refused %v", h.refused)
	}
}

// What reaches front.sock past the front door is refused there.
func TestFrontSocket(t *testing.T) {
	h := newHouse(t)
	h.login()
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", h.vmctld.path)
	}}
	defer tr.CloseIdleConnections()
	signer, err := sign.NewSigner(bytes.Repeat([]byte{1}, 32), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	good, err := sign.NewSigner(h.key, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	old, err := sign.NewSigner(h.key, func() time.Time { return time.Now().Add(-time.Minute) })
	if err != nil {
		t.Fatal(err)
	}
	id := sign.Identity{User: "local:admin", Session: h.live()[0]}
	for code, prepare := range map[string]func(*http.Request) error{
		"signatureMissing":  func(*http.Request) error { return nil },
		"signatureInvalid":  func(r *http.Request) error { return signer.Sign(r, []byte("body"), id) },
		"signatureInvalid ": func(r *http.Request) error { return good.Sign(r, []byte("another body"), id) },
		"signatureStale":    func(r *http.Request) error { return old.Sign(r, []byte("body"), id) },
		"signatureReplayed": func(r *http.Request) error {
			if err := good.Sign(r, []byte("body"), id); err != nil {
				return err
			}
			res, err := tr.RoundTrip(r.Clone(t.Context()))
			if err == nil {
				res.Body.Close()
				r.Body = io.NopCloser(strings.NewReader("body"))
			}
			return err
		},
	} {
		r, err := http.NewRequestWithContext(t.Context(), "POST", "http://vmctld/v1/vms", strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		if err := prepare(r); err != nil {
			t.Fatal(err)
		}
		res, err := tr.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != 401 || !strings.Contains(string(body), strings.TrimSpace(code)) {
			t.Errorf("%s: %d %s %v", code, res.StatusCode, body, err)
		}
	}
}

func TestBodyLimits(t *testing.T) {
	h := newHouse(t)
	large := strings.Repeat("x", sign.MaxBody+1)
	if a := h.send(h.client, "POST", "/api/v1/vms", large, nil); a.StatusCode != 401 {
		t.Errorf("large body of a stranger: %d", a.StatusCode)
	}
	h.login()
	if a := h.send(h.client, "POST", "/api/v1/vms", large, nil); a.StatusCode != 413 || a.code() != "tooLarge" {
		t.Errorf("large body: %d", a.StatusCode)
	}
	r, err := http.NewRequestWithContext(t.Context(), "POST", h.url+"/api/v1/vms", io.MultiReader(strings.NewReader(large))) // chunked
	if err != nil {
		t.Fatal(err)
	}
	if res, err := h.client.Do(r); err != nil || res.StatusCode != 413 {
		t.Errorf("large body of unknown length: %v %v", res, err)
	} else {
		res.Body.Close()
	}
	if s := h.seen(h.send(h.client, "POST", "/api/v1/vms", large[:sign.MaxBody], nil)); len(s.Body) != sign.MaxBody {
		t.Errorf("%d bytes arrived", len(s.Body))
	}
	res, _ := h.raw("GET /ui/ HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n")
	if res.StatusCode != 431 {
		t.Errorf("large header: %d", res.StatusCode)
	}
}

// An event is there when vmctld has sent it, with both versions of HTTP, and
// the stream ends with the session.
func TestEventsStream(t *testing.T) {
	for _, h2 := range []bool{true, false} {
		h := newHouse(t)
		h.client = h.browser(h2)
		h.login()
		res, err := h.client.Get(h.url + "/api/v1/events")
		if err != nil {
			t.Fatal(err)
		}
		read := bufio.NewReader(res.Body)
		for _, want := range []string{"id: 1\n", "event: host.started\n", "data: {}\n", "\n"} {
			if line, err := read.ReadString('\n'); err != nil || line != want {
				t.Fatalf("HTTP/2 %v: line is %q, %v", h2, line, err)
			}
		}
		if a := h.send(h.client, "POST", "/auth/v1/logout", "", nil); a.StatusCode != 204 {
			t.Fatal(a.StatusCode)
		}
		began := time.Now()
		rest, _ := io.ReadAll(read) // how it ends differs, that it ends counts
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("HTTP/2 %v: the stream went on for %s: %q", h2, took, rest)
		}
		res.Body.Close()
	}
}

func TestDaemonAway(t *testing.T) {
	h := newHouse(t)
	h.login()
	h.vmctld.stop()
	for _, method := range []string{"GET", "POST"} {
		a := h.send(h.client, method, "/api/v1/vms", "", nil)
		if a.StatusCode != 503 || a.code() != "unavailable" || a.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %s", method, a.StatusCode, a.body)
		}
	}
	if a := h.get("/auth/v1/session"); a.StatusCode != 200 {
		t.Errorf("the session: %d", a.StatusCode)
	}
	// It comes back and has forgotten the session: that is made good at once.
	h.vmctld.start()
	for _, method := range []string{"POST", "GET"} {
		if a := h.send(h.client, method, "/api/v1/vms", "{}", nil); a.StatusCode != 200 {
			t.Errorf("%s after the restart: %d %s", method, a.StatusCode, a.body)
		}
	}
	// A session that ends while vmctld is away ends there later.
	h.vmctld.mu.Lock()
	kept := h.vmctld.sessions
	h.vmctld.mu.Unlock()
	h.vmctld.stop()
	if a := h.send(h.client, "POST", "/auth/v1/logout", "", nil); a.StatusCode != 204 {
		t.Errorf("logout: %d", a.StatusCode)
	}
	h.vmctld.start()
	h.vmctld.mu.Lock()
	h.vmctld.sessions = kept
	h.vmctld.mu.Unlock()
	h.door.keeper.Sweep(t.Context())
	if len(h.live()) != 0 {
		t.Errorf("vmctld still knows %v", h.live())
	}
}

// A key that vmctld does not have is our defect, not the browser's login.
func TestWrongKey(t *testing.T) {
	h := newHouse(t)
	h.vmctld.stop()
	h.vmctld.key = bytes.Repeat([]byte{9}, 32)
	h.vmctld.start()
	h.login()
	if a := h.get("/api/v1/vms"); a.StatusCode != 503 || a.code() != "unavailable" || !strings.Contains(a.body, "key") {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}

// A query is not in the log, whatever path it is on.
func TestLogHasNoQuery(t *testing.T) {
	h := newHouse(t)
	h.get("/console/web?token=SECRETSECRETSECRET")
	h.get("/ui/?token=SECRETSECRETSECRET")
	until(t, "two lines of log", func() bool { return strings.Count(h.log.String(), "msg=request") >= 2 })
	if strings.Contains(h.log.String(), "SECRET") {
		t.Error(h.log.String())
	}
}
