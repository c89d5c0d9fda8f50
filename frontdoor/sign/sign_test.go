// SPDX-License-Identifier: Apache-2.0

package sign_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"vmctl/frontdoor/sign"
)

var key = bytes.Repeat([]byte{7}, sign.KeySize)

// clock is a wall clock that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 11, 23, 12, 0, 0, 300e6, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func pair(t testing.TB, c *clock) (*sign.Signer, *sign.Verifier) {
	t.Helper()
	v, err := sign.NewVerifier(key, c.now)
	if err != nil {
		t.Fatal(err)
	}
	s, err := sign.NewSigner(key, c.now)
	if err != nil {
		t.Fatal(err)
	}
	c.add(time.Millisecond)
	return s, v
}

var ann = sign.Identity{User: "local:ann", Groups: []string{"local-group:ops", "oidc-group:https://idp.example/#a b,c%"},
	Session: "0b8fcb2e", Address: "2001:db8::1"}

// wire sends r over a connection in memory, so that the verifier sees what a
// server sees.
func wire(t testing.TB, r *http.Request) *http.Request {
	t.Helper()
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	got, err := http.ReadRequest(bufio.NewReader(&b))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func signed(t testing.TB, s *sign.Signer, method, url, body string, id sign.Identity) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Sign(r, []byte(body), id); err != nil {
		t.Fatal(err)
	}
	return wire(t, r)
}

func TestRoundTrip(t *testing.T) {
	s, v := pair(t, newClock())
	for _, url := range []string{"http://d/v1/vms", "http://d/v1/vms?limit=5&cursor=a%2Fb", "http://d/v1/vms/x:powerOn",
		"http://d/v1/vms/a%3ApowerOn", "http://d/v1/%2e%2e/x?", "http://d"} {
		for _, id := range []sign.Identity{ann, {User: "service:vmhttp"}, {User: "local:ünï", Groups: []string{"x"}}} {
			r := signed(t, s, "POST", url, `{"a":1}`, id)
			got, err := v.Verify(r, []byte(`{"a":1}`))
			if err != nil {
				t.Errorf("%s as %s: %v", url, id.User, err)
			} else if !reflect.DeepEqual(got, id) {
				t.Errorf("%s: identity is %+v, want %+v", url, got, id)
			}
		}
	}
}

// Every single part that is covered is changed by one who has no key.
func TestTampered(t *testing.T) {
	body := `{"name":"a"}`
	cases := map[string]func(r *http.Request) string{
		"method":       func(r *http.Request) string { r.Method = "DELETE"; return body },
		"path":         func(r *http.Request) string { r.RequestURI = "/v1/vms/b?x=1"; return body },
		"path spelled": func(r *http.Request) string { r.RequestURI = "/v1/%76ms/a?x=1"; return body },
		"query":        func(r *http.Request) string { r.RequestURI = "/v1/vms/a?x=2"; return body },
		"absolute":     func(r *http.Request) string { r.RequestURI = "http://d/v1/vms/a?x=1"; return body },
		"star":         func(r *http.Request) string { r.RequestURI = "*"; return body },
		"body":         func(r *http.Request) string { return `{"name":"b"}` },
		"no body":      func(r *http.Request) string { return "" },
		"body and digest": func(r *http.Request) string {
			r.Header.Set("Content-Digest", "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:")
			return ""
		},
		"no digest":      func(r *http.Request) string { r.Header.Del("Content-Digest"); return body },
		"user":           func(r *http.Request) string { r.Header.Set("Vmctl-User", "local:admin"); return body },
		"groups":         func(r *http.Request) string { r.Header.Set("Vmctl-Groups", "unix-group:vmctl-admin"); return body },
		"more groups":    func(r *http.Request) string { r.Header.Add("Vmctl-Groups", "x"); return body },
		"session":        func(r *http.Request) string { r.Header.Set("Vmctl-Session", ""); return body },
		"address":        func(r *http.Request) string { r.Header.Set("Vmctl-Address", "::1"); return body },
		"second user":    func(r *http.Request) string { r.Header.Add("Vmctl-User", "local:admin"); return body },
		"second digest":  func(r *http.Request) string { r.Header.Add("Content-Digest", "sha-256=::"); return body },
		"odd user":       func(r *http.Request) string { r.Header["Vmctl_user"] = []string{"local:admin"}; return body },
		"unknown header": func(r *http.Request) string { r.Header.Set("Vmctl-Role", "admin"); return body },
		"two signatures": func(r *http.Request) string { r.Header.Add("Signature", r.Header.Get("Signature")); return body },
		"two inputs":     func(r *http.Request) string { r.Header.Add("Signature-Input", "x=()"); return body },
		"no input":       func(r *http.Request) string { r.Header.Del("Signature-Input"); return body },
		"no signature":   func(r *http.Request) string { r.Header.Del("Signature"); return body },
		"other signature": func(r *http.Request) string {
			r.Header.Set("Signature", "sig1=:"+strings.Repeat("A", 43)+"=:")
			return body
		},
		"second label": func(r *http.Request) string {
			r.Header.Set("Signature-Input", r.Header.Get("Signature-Input")+`, sig2=()`)
			return body
		},
		"fewer components": func(r *http.Request) string {
			r.Header.Set("Signature-Input", strings.Replace(r.Header.Get("Signature-Input"), ` "vmctl-user"`, "", 1))
			return body
		},
		"later expiry": func(r *http.Request) string {
			in := r.Header.Get("Signature-Input")
			i := strings.Index(in, ";expires=") + len(";expires=")
			r.Header.Set("Signature-Input", in[:i]+"9"+in[i+1:])
			return body
		},
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			s, v := pair(t, newClock())
			r := signed(t, s, "POST", "http://d/v1/vms/a?x=1", body, ann)
			got, err := v.Verify(r, []byte(change(r)))
			if !errors.Is(err, sign.ErrInvalid) {
				t.Errorf("error is %v, identity %+v", err, got)
			}
			if !reflect.DeepEqual(got, sign.Identity{}) {
				t.Errorf("identity %+v came with an error", got)
			}
		})
	}
}

func TestMissing(t *testing.T) {
	_, v := pair(t, newClock())
	r := httptest.NewRequest("GET", "/v1/vms", nil)
	r.Header.Set("Vmctl-User", "local:admin")
	if _, err := v.Verify(r, nil); !errors.Is(err, sign.ErrMissing) {
		t.Errorf("error is %v", err)
	}
}

func TestOtherKey(t *testing.T) {
	c := newClock()
	_, v := pair(t, c)
	s, err := sign.NewSigner(bytes.Repeat([]byte{8}, sign.KeySize), c.now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(signed(t, s, "GET", "http://d/v1", "", ann), nil); !errors.Is(err, sign.ErrInvalid) {
		t.Errorf("error is %v", err)
	}
	if _, err := sign.NewSigner(key[:16], c.now); err == nil {
		t.Error("a key of 16 bytes was taken")
	}
}

func TestReplay(t *testing.T) {
	s, v := pair(t, newClock())
	r := signed(t, s, "GET", "http://d/v1/vms", "", ann)
	if _, err := v.Verify(r, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(r, nil); !errors.Is(err, sign.ErrReplayed) {
		t.Errorf("second use gave %v", err)
	}
}

// A request that is refused for its body does not use up its nonce.
func TestRefusalLeavesNonce(t *testing.T) {
	s, v := pair(t, newClock())
	r := signed(t, s, "POST", "http://d/v1/vms", "a", ann)
	if _, err := v.Verify(r, []byte("b")); !errors.Is(err, sign.ErrInvalid) {
		t.Fatal(err)
	}
	if _, err := v.Verify(r, []byte("a")); err != nil {
		t.Error(err)
	}
}

func TestTimes(t *testing.T) {
	for name, tc := range map[string]struct {
		move time.Duration
		want error
	}{
		"at once": {0, nil}, "14 s later": {14 * time.Second, nil}, "expired": {15 * time.Second, sign.ErrStale},
		"day later": {24 * time.Hour, sign.ErrStale}, "from 1 s ahead": {-time.Second, nil},
		"from 5 s ahead": {-5 * time.Second, sign.ErrStale},
	} {
		c := newClock()
		c.add(-time.Hour) // the verifier is an hour old
		s, v := pair(t, c)
		c.add(time.Hour)
		r := signed(t, s, "GET", "http://d/v1", "", ann)
		c.add(tc.move)
		if _, err := v.Verify(r, nil); !errors.Is(err, tc.want) {
			t.Errorf("%s: error is %v, want %v", name, err, tc.want)
		}
	}
}

// What was signed before the verifier began is refused, though it has not
// expired and is of the same second: its nonce may be one that was used.
func TestBeforeStart(t *testing.T) {
	c := newClock()
	s, _ := pair(t, c)
	r := signed(t, s, "GET", "http://d/v1", "", ann)
	c.add(time.Millisecond)
	_, restarted := pair(t, c)
	if _, err := restarted.Verify(r, nil); !errors.Is(err, sign.ErrStale) {
		t.Errorf("error is %v", err)
	}
	if _, err := restarted.Verify(signed(t, s, "GET", "http://d/v1", "", ann), nil); err != nil {
		t.Errorf("first request after the start: %v", err)
	}
}

func TestIdentityLimits(t *testing.T) {
	s, _ := pair(t, newClock())
	many := make([]string, sign.MaxGroups+1)
	for i := range many {
		many[i] = "g"
	}
	for name, id := range map[string]sign.Identity{
		"empty": {}, "line end": {User: "a\r\nVmctl-Role: x"}, "zero": {User: "a\x00"}, "not UTF-8": {User: "\xff"},
		"C1": {User: "a\u0085"}, "long": {User: strings.Repeat("a", sign.MaxName+1)}, "groups": {User: "a", Groups: many},
		"empty group": {User: "a", Groups: []string{""}}, "long session": {User: "a", Session: strings.Repeat("a", sign.MaxSession+1)},
	} {
		r := httptest.NewRequest("GET", "/v1", nil)
		if err := s.Sign(r, nil, id); !errors.Is(err, sign.ErrIdentity) {
			t.Errorf("%s: error is %v", name, err)
		}
		if len(r.Header) != 0 {
			t.Errorf("%s: left headers %v", name, r.Header)
		}
	}
	r := httptest.NewRequest("GET", "/v1", nil)
	if err := s.Sign(r, make([]byte, sign.MaxBody+1), ann); !errors.Is(err, sign.ErrSize) {
		t.Errorf("large body: %v", err)
	}
}

// A request that is passed on still has the target that it came with.
func TestSignIgnoresRequestURI(t *testing.T) {
	s, v := pair(t, newClock())
	r, _ := http.NewRequest("GET", "http://d/v1/vms", nil)
	r.RequestURI = "/api/v1/vms"
	if err := s.Sign(r, nil, ann); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(wire(t, r), nil); err != nil {
		t.Error(err)
	}
}

// Headers that were there before are replaced, not added to.
func TestSignReplaces(t *testing.T) {
	s, v := pair(t, newClock())
	r, _ := http.NewRequest("GET", "http://d/v1", nil)
	for _, h := range []string{"Vmctl-User", "Signature", "Signature-Input", "Content-Digest", "Vmctl-Groups"} {
		r.Header[h] = []string{"a", "b"}
	}
	if err := s.Sign(r, nil, ann); err != nil {
		t.Fatal(err)
	}
	if id, err := v.Verify(wire(t, r), nil); err != nil || id.User != ann.User {
		t.Errorf("identity %+v, error %v", id, err)
	}
}

// Many goroutines show one signature: one of them gets in.
func TestConcurrentReplay(t *testing.T) {
	s, v := pair(t, newClock())
	r := signed(t, s, "GET", "http://d/v1", "", ann)
	var wg sync.WaitGroup
	var mu sync.Mutex
	in := 0
	for range 16 {
		wg.Go(func() {
			if _, err := v.Verify(r, nil); err == nil {
				mu.Lock()
				in++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if in != 1 {
		t.Errorf("%d got in", in)
	}
}

func TestReadKey(t *testing.T) {
	raw := bytes.Repeat([]byte{0xfe}, 32)
	for name, tc := range map[string]struct {
		content string
		ok      bool
	}{
		"raw": {string(raw), true}, "base64": {"/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v4=\n", true},
		"short base64": {"AAAA\n", false}, "empty": {"", false}, "raw with line end": {string(raw) + "\n", false},
		"huge": {strings.Repeat("A", 8192), false},
	} {
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, []byte(tc.content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := sign.ReadKey(path)
		if (err == nil) != tc.ok {
			t.Errorf("%s: error is %v", name, err)
		}
		if tc.ok && !bytes.Equal(got, raw) {
			t.Errorf("%s: key is %x", name, got)
		}
	}
	if _, err := sign.ReadKey(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func BenchmarkSignVerify(b *testing.B) {
	c := newClock()
	s, v := pair(b, c)
	body := bytes.Repeat([]byte("x"), 512)
	r, _ := http.NewRequest("POST", "http://d/v1/vms", io.NopCloser(bytes.NewReader(body)))
	for b.Loop() {
		c.add(time.Millisecond)
		if err := s.Sign(r, body, ann); err != nil {
			b.Fatal(err)
		}
		r.RequestURI = "/v1/vms"
		if _, err := v.Verify(r, body); err != nil {
			b.Fatal(err)
		}
	}
}
