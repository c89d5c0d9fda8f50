// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"vmctl/daemon/api"
	"vmctl/daemon/client"
)

func TestParseServer(t *testing.T) {
	good := map[string]string{
		"https://host": "https://host", "https://host/": "https://host", "https://Host:8443": "https://host:8443",
		"https://host:443": "https://host", "https://[::1]:8443": "https://[::1]:8443", "https://host:": "https://host",
	}
	for in, want := range good {
		if got, err := client.ParseServer(in); got != want || err != nil {
			t.Errorf("ParseServer(%q) = %q, %v", in, got, err)
		}
	}
	for _, in := range []string{
		"", "host:8443", "http://host", "https://", "https://u:p@host", "https://host/x", "https://host?a", "https://host#a", "https://a b", "https://host:port",
	} {
		if got, err := client.ParseServer(in); err == nil {
			t.Errorf("ParseServer(%q) = %q", in, got)
		}
	}
	if _, err := client.New(client.Config{Socket: "/a", Server: "https://host"}); err == nil {
		t.Error("a socket and a server at once were accepted")
	}
	if _, err := client.New(client.Config{Server: "https://host", Fingerprint: "abc"}); err == nil {
		t.Error("half a fingerprint was accepted")
	}
}

func TestParseFingerprint(t *testing.T) {
	plain := strings.Repeat("ab", 32)
	colons := strings.TrimSuffix(strings.Repeat("AB:", 32), ":")
	for _, in := range []string{plain, colons, "SHA256:" + plain, "sha256:" + colons, " " + plain + "\n"} {
		pin, err := client.ParseFingerprint(in)
		if err != nil || pin.String() != colons {
			t.Errorf("ParseFingerprint(%q) = %v, %v", in, pin, err)
		}
	}
	for _, in := range []string{"", plain[2:], plain + "ab", strings.Repeat("zz", 32)} {
		if _, err := client.ParseFingerprint(in); err == nil {
			t.Errorf("ParseFingerprint(%q) was accepted", in)
		}
	}
}

func TestCallsThroughTheFrontDoor(t *testing.T) {
	srv := onTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cookie, err := r.Cookie("__Host-vmctl")
		if r.URL.Path != "/api/v1/host" || err != nil || cookie.Value != "secret" {
			t.Errorf("saw %s with cookie %v, %v", r.URL, cookie, err)
		}
		answer(w, 200, api.Host{Hostname: "h1"})
	}))
	c := newClient(t, client.Config{Server: srv.URL, Fingerprint: fingerprint(srv), Session: "secret"})
	host, err := c.Host(t.Context())
	if err != nil || host.Hostname != "h1" {
		t.Errorf("host gave %v, %v", host, err)
	}
	if !c.Remote() || c.Origin() != srv.URL {
		t.Errorf("origin is %q, want %q", c.Origin(), srv.URL)
	}
}

func TestOtherCertificatesAreRefused(t *testing.T) {
	srv := onTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { t.Error("a request came through") }))
	other := strings.Repeat("00", 32)
	c := newClient(t, client.Config{Server: srv.URL, Fingerprint: other, Session: "secret"})
	_, err := c.PowerOn(t.Context(), "web")
	var pin *client.PinError
	if !errors.As(err, &pin) || strings.ReplaceAll(strings.ToLower(pin.Got.String()), ":", "") != fingerprint(srv) {
		t.Errorf("another certificate gave %v", err)
	}
	c = newClient(t, client.Config{Server: srv.URL})
	if _, err := c.Host(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate that nobody vouches for gave %v", err)
	}
}

func TestProbeCertificate(t *testing.T) {
	srv := onTLS(t, http.NotFoundHandler())
	pin, trusted, err := client.ProbeCertificate(t.Context(), srv.URL)
	if err != nil || trusted || strings.ReplaceAll(strings.ToLower(pin.String()), ":", "") != fingerprint(srv) {
		t.Errorf("probe gave %v, %v, %v", pin, trusted, err)
	}
	srv.Close()
	if _, _, err := client.ProbeCertificate(t.Context(), srv.URL); !client.Unreachable(err) {
		t.Errorf("a server that is gone gave %v", err)
	}
}

// door is vmhttp as far as logins go.
func door(t *testing.T) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /auth/v1/login", func(w http.ResponseWriter, r *http.Request) {
		var in struct{ User, Password string }
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			t.Error(err)
		}
		if in.User != "admin" || in.Password != "pass" {
			refuse(w, 401, api.CodeUnauthenticated, "user or password is wrong")
			return
		}
		http.SetCookie(w, &http.Cookie{Name: "__Host-vmctl", Value: "s3", Path: "/", Secure: true})
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET /auth/v1/session", func(w http.ResponseWriter, r *http.Request) {
		if c, err := r.Cookie("__Host-vmctl"); err != nil || c.Value != "s3" {
			refuse(w, 401, api.CodeUnauthenticated, "not logged in")
			return
		}
		answer(w, 200, client.Session{User: "local:admin", ExpiresAt: time.Unix(1e9, 0)})
	})
	mux.HandleFunc("POST /auth/v1/logout", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) })
	return mux
}

func TestLogin(t *testing.T) {
	srv := onTLS(t, door(t))
	cfg := client.Config{Server: srv.URL, Fingerprint: fingerprint(srv)}
	c := newClient(t, cfg)
	if _, err := c.Login(t.Context(), "admin", "wrong"); !errors.Is(err, client.ErrUnauthenticated) {
		t.Errorf("a wrong password gave %v", err)
	}
	secret, err := c.Login(t.Context(), "admin", "pass")
	if err != nil || secret != "s3" {
		t.Fatalf("login gave %q, %v", secret, err)
	}
	if _, err := c.Session(t.Context()); !errors.Is(err, client.ErrUnauthenticated) {
		t.Errorf("a client without session gave %v", err)
	}
	cfg.Session = secret
	c = newClient(t, cfg)
	session, err := c.Session(t.Context())
	if err != nil || session.User != "local:admin" || !session.ExpiresAt.Equal(time.Unix(1e9, 0)) {
		t.Errorf("session gave %v, %v", session, err)
	}
	if err := c.Logout(t.Context()); err != nil {
		t.Error(err)
	}
	local := onUnix(t, door(t))
	if _, err := local.Login(t.Context(), "admin", "pass"); err == nil {
		t.Error("a login on the socket was accepted")
	}
}

func TestDialConsole(t *testing.T) {
	mux := http.NewServeMux()
	srv := onTLS(t, mux)
	mux.HandleFunc("GET /console/web", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("token") != "t+/=" {
			refuse(w, 403, api.CodeForbidden, "the token was used")
			return
		}
		if r.Header.Get("Origin") != srv.URL {
			t.Errorf("origin is %q", r.Header.Get("Origin"))
		}
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"test.v1"}})
		if err != nil {
			t.Error(err)
			return
		}
		_ = conn.Write(r.Context(), websocket.MessageBinary, []byte("hi"))
		_ = conn.Close(4001, "bye")
	})
	c := newClient(t, client.Config{Server: srv.URL, Fingerprint: fingerprint(srv), Session: "s"})
	conn, err := c.DialConsole(t.Context(), "web", "t+/=", "test.v1")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	if _, data, err := conn.Read(t.Context()); string(data) != "hi" || err != nil {
		t.Errorf("read %q, %v", data, err)
	}
	if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != 4001 {
		t.Errorf("closed with %v", err)
	}
	if _, err := c.DialConsole(t.Context(), "web", "t+/=", "other.v1"); err == nil {
		t.Error("a server that speaks something else was accepted")
	}
	_, err = c.DialConsole(t.Context(), "web", "used-token", "test.v1")
	if !errors.Is(err, client.ErrForbidden) || strings.Contains(err.Error(), "used-token") {
		t.Errorf("a used token gave %v", err)
	}
	if _, err := c.DialConsole(t.Context(), "../x", "t", "test.v1"); !errors.Is(err, client.ErrNameInvalid) {
		t.Errorf("an odd name gave %v", err)
	}
}
