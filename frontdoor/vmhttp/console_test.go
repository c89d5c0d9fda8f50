// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"vmctl/monitor/console/proto"
)

func mustURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// monitor is a stand-in for vmx: a token is used once, and its name says what
// becomes of it.
type monitor struct {
	mu    sync.Mutex
	used  map[string]bool
	hello proto.Hello // of the last viewer
}

func (h *house) startMonitor() *monitor {
	ln, err := net.Listen("unix", filepath.Join(h.dir, vmUUID+".sock"))
	if err != nil {
		h.t.Fatal(err)
	}
	m := &monitor{used: make(map[string]bool)}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				m.serve(c)
			})
		}
	})
	h.t.Cleanup(func() {
		ln.Close()
		all.Wait()
	})
	return m
}

// admit is the monitor's decision on a token.
func (m *monitor) admit(hello proto.Hello) *proto.Close {
	m.mu.Lock()
	defer m.mu.Unlock()
	token := string(hello.Token)
	m.hello = proto.Hello{Token: []byte(token), Session: hello.Session, Address: hello.Address, Offset: hello.Offset}
	switch {
	case strings.HasPrefix(token, "expired"):
		return &proto.Close{Code: proto.TokenExpired, Text: "the token has expired"}
	case !strings.HasPrefix(token, "good"):
		return &proto.Close{Code: proto.TokenUnknown, Text: "nobody granted this token"}
	case m.used[token]:
		return &proto.Close{Code: proto.TokenUsed, Text: "the token was used"}
	}
	m.used[token] = true
	return nil
}

// serve echoes what is typed, and obeys a few words.
func (m *monitor) serve(c net.Conn) {
	frames := proto.NewScanner(c, proto.MaxPayload)
	f, err := frames.Next()
	if err != nil || f.Type != proto.TypeHello {
		return
	}
	hello, err := proto.ParseHello(f.Payload)
	if err != nil {
		return
	}
	if no := m.admit(hello); no != nil {
		_, _ = c.Write(proto.AppendClose(nil, *no))
		return
	}
	_, _ = c.Write(proto.AppendOK(nil, proto.OK{Viewer: 7, Writer: true, Offset: 3}))
	_, _ = c.Write(proto.AppendHistory(nil, 0, []byte("old")))
	for {
		f, err := frames.Next()
		if err != nil {
			return
		}
		switch string(f.Payload) {
		case "close":
			_, _ = c.Write(proto.AppendClose(nil, proto.Close{Code: proto.VMDeleted, Text: "the VM was deleted"}))
		case "die":
			return
		case "garbage":
			_, _ = c.Write([]byte{0xff, 0, 0, 1, 0})
		case "flood":
			if !flood(c) {
				return
			}
		default:
			_, _ = c.Write(proto.AppendFrame(nil, proto.TypeData, f.Payload))
		}
	}
}

// flood writes 8 MiB, more than buffers between hold.
func flood(c net.Conn) bool {
	block := proto.AppendFrame(nil, proto.TypeData, bytes.Repeat([]byte("x"), 32<<10))
	for range 256 {
		if _, err := c.Write(block); err != nil {
			return false
		}
	}
	return true
}

func (h *house) dial(token, origin string, change ...func(*websocket.DialOptions)) (*websocket.Conn, *http.Response, error) {
	o := &websocket.DialOptions{HTTPClient: &http.Client{Transport: h.client.Transport, Jar: h.client.Jar},
		HTTPHeader: http.Header{}, Subprotocols: []string{proto.Subprotocol}}
	if origin != "" {
		o.HTTPHeader.Set("Origin", origin)
	}
	for _, c := range change {
		c(o)
	}
	ws, res, err := websocket.Dial(h.t.Context(), h.url+"/console/"+vmName+"?token="+token, o)
	if ws != nil {
		ws.SetReadLimit(1 << 20)
		h.t.Cleanup(func() { ws.CloseNow() })
	}
	return ws, res, err
}

func (h *house) mustDial(token string) *websocket.Conn {
	h.t.Helper()
	ws, _, err := h.dial(token, h.url)
	if err != nil {
		h.t.Fatal(err)
	}
	return ws
}

func readFrame(t *testing.T, ws *websocket.Conn) (proto.Type, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	kind, m, err := ws.Read(ctx)
	if err != nil || kind != websocket.MessageBinary || len(m) == 0 {
		t.Fatalf("message is %v %q, %v", kind, m, err)
	}
	return proto.Type(m[0]), string(m[1:])
}

// closed reads until the close frame.
func closed(t *testing.T, ws *websocket.Conn) websocket.CloseError {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	for {
		_, _, err := ws.Read(ctx)
		if err == nil {
			continue
		}
		var c websocket.CloseError
		if !errors.As(err, &c) {
			t.Fatalf("ended without a close frame: %v", err)
		}
		return c
	}
}

func TestConsole(t *testing.T) {
	h := newHouse(t)
	m := h.startMonitor()
	h.login()
	ws := h.mustDial("good-1&offset=4294967299")
	if ws.Subprotocol() != proto.Subprotocol {
		t.Errorf("subprotocol is %q", ws.Subprotocol())
	}
	if kind, p := readFrame(t, ws); kind != proto.TypeOK || len(p) != 13 {
		t.Errorf("first frame is %d %q", kind, p)
	}
	if kind, p := readFrame(t, ws); kind != proto.TypeHistory || !strings.HasSuffix(p, "old") {
		t.Errorf("second frame is %d %q", kind, p)
	}
	if m.hello.Session != h.live()[0] || m.hello.Address != "127.0.0.1" || string(m.hello.Token) != "good-1" || m.hello.Offset != 1<<32+3 {
		t.Errorf("hello is %+v", m.hello)
	}
	if err := ws.Write(t.Context(), websocket.MessageBinary, append([]byte{byte(proto.TypeData)}, "uname -a\n"...)); err != nil {
		t.Fatal(err)
	}
	if kind, p := readFrame(t, ws); kind != proto.TypeData || p != "uname -a\n" {
		t.Errorf("echo is %d %q", kind, p)
	}
	if err := ws.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
	if strings.Contains(h.log.String(), "good-1") {
		t.Error("the token is in the log")
	}
}

// The monitor's reasons reach the browser as close codes.
func TestConsoleCloses(t *testing.T) {
	h := newHouse(t)
	h.startMonitor()
	h.login()
	if ws := h.mustDial("good-used"); ws != nil {
		readFrame(t, ws)
		ws.CloseNow()
	}
	data := func(s string) []byte { return append([]byte{byte(proto.TypeData)}, s...) }
	for name, tc := range map[string]struct {
		token string
		kind  websocket.MessageType
		send  []byte
		code  int
		text  string
	}{
		"used":      {"good-used", 0, nil, 4002, "the token was used"},
		"expired":   {"expired", 0, nil, 4003, "the token has expired"},
		"foreign":   {"foreign", 0, nil, 4001, "nobody granted this token"},
		"deleted":   {"good-a", websocket.MessageBinary, data("close"), 4007, "the VM was deleted"},
		"gone":      {"good-b", websocket.MessageBinary, data("die"), 4008, "the VM's monitor is gone"},
		"garbage":   {"good-c", websocket.MessageBinary, data("garbage"), 1011, "the monitor broke the protocol"},
		"text":      {"good-d", websocket.MessageText, []byte("hi"), 4009, "a message must be binary and begin with its type"},
		"empty":     {"good-e", websocket.MessageBinary, nil, 4009, "a message must be binary and begin with its type"},
		"hello":     {"good-f", websocket.MessageBinary, []byte{1, 0, 0}, 4009, "a browser must not send this type of frame"},
		"server's":  {"good-g", websocket.MessageBinary, []byte{2}, 4009, "a browser must not send this type of frame"},
		"no type":   {"good-h", websocket.MessageBinary, []byte{99}, 4009, "a browser must not send this type of frame"},
		"too much":  {"good-i", websocket.MessageBinary, data(strings.Repeat("x", proto.MaxTyped+1)), 4009, "too much was typed at once"},
		"odd size":  {"good-j", websocket.MessageBinary, []byte{byte(proto.TypeResize), 1}, 4009, "a size has four bytes"},
		"fat pong":  {"good-k", websocket.MessageBinary, []byte{byte(proto.TypePong), 1}, 4009, "this type of frame carries nothing"},
		"oversized": {"good-l", websocket.MessageBinary, data(strings.Repeat("x", 70<<10)), 1009, ""},
	} {
		ws := h.mustDial(tc.token)
		if tc.kind != 0 {
			if err := ws.Write(t.Context(), tc.kind, tc.send); err != nil {
				t.Fatal(err)
			}
		}
		if c := closed(t, ws); int(c.Code) != tc.code || tc.text != "" && c.Reason != tc.text {
			t.Errorf("%s: closed with %d %q", name, c.Code, c.Reason)
		}
	}
}

// Before the upgrade it is HTTP and says why not.
func TestConsoleRefused(t *testing.T) {
	h := newHouse(t)
	h.startMonitor()
	refused := func(name string, status int, code string, origin string, change ...func(*websocket.DialOptions)) {
		t.Helper()
		_, res, err := h.dial("good-1", origin, change...)
		if err == nil || res == nil {
			t.Errorf("%s: %v %v", name, res, err)
			return
		}
		body := make([]byte, 1024)
		n, _ := res.Body.Read(body)
		if res.StatusCode != status || !strings.Contains(string(body[:n]), `"code":"`+code+`"`) {
			t.Errorf("%s: %d %s", name, res.StatusCode, body[:n])
		}
	}
	refused("no login", 401, "unauthenticated", h.url)
	refused("no login, other origin", 403, "originRefused", "https://evil.example")
	h.login()
	host := strings.TrimPrefix(h.url, "https://")
	for _, origin := range []string{"https://evil.example", "null", "http://" + host, "https://" + host + ".evil.example", "https://evil.example@evil.example",
		"https://localhost:1", "file://"} {
		refused("origin "+origin, 403, "originRefused", origin)
	}
	refused("no subprotocol", 400, "invalidRequest", h.url, func(o *websocket.DialOptions) { o.Subprotocols = nil })
	for path, want := range map[string]string{
		"/console/web":                                    "400 invalidRequest",
		"/console/web?token=":                             "400 invalidRequest",
		"/console/web?token=a&token=b":                    "400 invalidRequest",
		"/console/web?token=" + strings.Repeat("a", 200):  "400 invalidRequest",
		"/console/web?token=%00":                          "400 invalidRequest",
		"/console/web?token=good-1&offset=-1":             "400 invalidRequest",
		"/console/web?token=good-1&offset=":               "400 invalidRequest",
		"/console/web?token=good-1&offset=1&offset=2":     "400 invalidRequest",
		"/console/web?token=good-1":                       "426 upgradeRequired",
		"/console/..%2F..%2Fetc?token=good-1":             "404 notFound",
		"/console/WEB?token=good-1":                       "404 notFound",
		"/console/" + vmUUID + "%2F..?token=good-1":       "404 notFound",
		"/console/" + strings.Repeat("a", 99) + "?token=": "404 notFound",
	} {
		if a := h.get(path); a.Status[:3]+" "+a.code() != want {
			t.Errorf("%s: %s %s, want %s", path, a.Status, a.code(), want)
		}
	}
	upgrade := http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="},
		"Sec-Websocket-Protocol": {proto.Subprotocol}}
	h1 := h.browser(false)
	h1.Jar = h.client.Jar
	if a := h.send(h1, "GET", "/console/hidden?token=good-1", "", upgrade); a.StatusCode != 404 || a.code() != "notFound" {
		t.Errorf("a VM not to be seen: %d %s", a.StatusCode, a.body)
	}
	if a := h.send(h.client, "POST", "/console/web?token=good-1", "", nil); a.StatusCode != 405 {
		t.Errorf("POST: %d", a.StatusCode)
	}
	h.vmctld.stop()
	if a := h.send(h1, "GET", "/console/web?token=good-1", "", upgrade); a.StatusCode != 503 || a.code() != "unavailable" {
		t.Errorf("vmctld away: %d %s", a.StatusCode, a.body)
	}
}

func TestConsoleNotServed(t *testing.T) {
	h := newHouse(t)
	h.login()
	_, res, err := h.dial("good-1", h.url)
	if err == nil || res == nil || res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Errorf("%v %v", res, err)
	}
}

func TestTrustedOrigin(t *testing.T) {
	h := newHouse(t, func(o *options) { o.origins = list{"https://vm.example"} })
	h.startMonitor()
	h.login()
	ws, _, err := h.dial("good-1", "https://vm.example")
	if err != nil {
		t.Fatal(err)
	}
	readFrame(t, ws)
	if a := h.send(h.client, "POST", "/api/v1/vms", "{}", http.Header{"Origin": {"https://vm.example"}}); a.StatusCode != 200 {
		t.Errorf("trusted origin: %d", a.StatusCode)
	}
}

func TestConsoleEndsWithSession(t *testing.T) {
	h := newHouse(t)
	h.startMonitor()
	h.login()
	ws := h.mustDial("good-1")
	readFrame(t, ws)
	readFrame(t, ws)
	done := make(chan websocket.CloseError)
	go func() { done <- closed(t, ws) }()
	if a := h.send(h.client, "POST", "/auth/v1/logout", "", nil); a.StatusCode != 204 {
		t.Fatal(a.StatusCode)
	}
	if c := <-done; c.Code != 4006 || !strings.Contains(c.Reason, "session has ended") {
		t.Errorf("closed with %d %q", c.Code, c.Reason)
	}
}

// A browser that does not read stops the monitor, not our memory; what it
// reads later is all there.
func TestConsoleBackpressure(t *testing.T) {
	h := newHouse(t)
	h.startMonitor()
	h.login()
	ws := h.mustDial("good-1")
	readFrame(t, ws)
	readFrame(t, ws)
	if err := ws.Write(t.Context(), websocket.MessageBinary, append([]byte{byte(proto.TypeData)}, "flood"...)); err != nil {
		t.Fatal(err)
	}
	for got := 0; got < 256*32<<10; {
		kind, p := readFrame(t, ws)
		if kind != proto.TypeData {
			t.Fatalf("frame %d", kind)
		}
		got += len(p)
	}
}

func TestConsoleLimit(t *testing.T) {
	h := newHouse(t)
	h.startMonitor()
	h.login()
	for i := range 16 {
		readFrame(t, h.mustDial("good-"+string(rune('a'+i))))
	}
	_, res, err := h.dial("good-z", h.url)
	if err == nil || res == nil || res.StatusCode != 429 {
		t.Errorf("%v %v", res, err)
	}
}
