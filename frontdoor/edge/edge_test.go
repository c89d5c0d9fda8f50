// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// A certificate that is replaced is shown to the next who connects; one that
// does not fit its key leaves the old one in use.
func TestCertificateReload(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "c", "cert.pem"), filepath.Join(dir, "c", "key.pem")
	now := time.Now()
	if made, err := EnsureCertificate(cert, key, []string{"vm.example", "192.0.2.9"}, now); !made || err != nil {
		t.Fatal(made, err)
	}
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key is %v, %v", info.Mode(), err)
	}
	if made, err := EnsureCertificate(cert, key, nil, now); made || err != nil {
		t.Error("made again", err)
	}
	c, err := LoadCertificate(cert, key, func() time.Time { return now }, quiet)
	if err != nil {
		t.Fatal(err)
	}
	first := c.Fingerprint()
	leaf, err := x509.ParseCertificate(c.current.Certificate[0])
	if err != nil || leaf.VerifyHostname("vm.example") != nil || leaf.VerifyHostname("192.0.2.9") != nil || leaf.VerifyHostname("localhost") != nil {
		t.Errorf("names are %v %v, %v", leaf.DNSNames, leaf.IPAddresses, err)
	}
	shown := func() string {
		now = now.Add(2 * checkEvery)
		got, err := c.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return fingerprint(got.Certificate[0])
	}
	newCert, newKey, err := selfSigned(nil, now)
	if err != nil {
		t.Fatal(err)
	}
	replace(t, cert, newCert)
	if got := shown(); got != first {
		t.Error("a certificate without its key was taken")
	}
	replace(t, key, newKey)
	second := shown()
	if second == first || second != c.Fingerprint() {
		t.Error("the new pair was not taken")
	}
	replace(t, cert, []byte("garbage"))
	if shown() != second {
		t.Error("garbage was taken")
	}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	if shown() != second {
		t.Error("a missing file lost the certificate")
	}
	if _, err := EnsureCertificate(cert, key, nil, now); err == nil {
		t.Error("half a pair was filled up")
	}
}

// replace writes as renewing programs do, with a time of its own.
func replace(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(name+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		t.Fatal(err)
	}
}

func TestConfigVersions(t *testing.T) {
	if c := (&Certificate{}).Config(); c.MinVersion != tls.VersionTLS12 || c.MaxVersion != 0 || c.NextProtos[0] != "h2" {
		t.Errorf("%+v", c)
	}
}

func TestListenerLimit(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	l := Limit(ln).(*limitListener)
	l.each = 2
	dial := func() net.Conn {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	accept := func() net.Conn {
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		return c
	}
	dial()
	dial()
	a, b := accept(), accept()
	over, next := dial(), make(chan net.Conn)
	go func() { next <- accept() }()
	if n, err := over.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Error("a third connection was kept")
	}
	_ = a.Close()
	_ = a.Close() // twice counts once
	dial()
	c := <-next
	_ = b.Close()
	_ = c.Close()
	if l.all != 0 || len(l.open) != 0 {
		t.Errorf("%d open, %v", l.all, l.open)
	}
}

func TestOrigins(t *testing.T) {
	for _, bad := range []string{"http://a", "https://", "a.example", "https://a/x", "https://a?x", "https://u@a", "*", "null", ""} {
		if _, err := NewOrigins([]string{bad}); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	o, err := NewOrigins([]string{"https://vm.example"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		host   string
		origin []string
		want   bool
	}{
		{"a.example:8443", nil, true}, {"a.example:8443", []string{"https://a.example:8443"}, true},
		{"A.example", []string{"https://a.EXAMPLE:443"}, true}, {"a.example:443", []string{"https://a.example"}, true},
		{"[::1]", []string{"https://[::1]:443"}, true}, {"a.example", []string{"https://vm.example"}, true},
		{"a.example:8443", []string{"https://a.example"}, false}, {"a.example", []string{"http://a.example"}, false},
		{"a.example", []string{"null"}, false}, {"a.example", []string{""}, false}, {"a.example", []string{"https://evil.example"}, false},
		{"a.example", []string{"https://a.example", "https://evil.example"}, false}, {"a.example", []string{"https://a.example.evil.example"}, false},
	} {
		r := &http.Request{Host: tc.host, Header: http.Header{}}
		if tc.origin != nil {
			r.Header["Origin"] = tc.origin
		}
		if got := o.Socket(r); got != tc.want {
			t.Errorf("%s at %s: %v", tc.origin, tc.host, got)
		}
	}
}

// A client that takes its time with the body, or with reading, is given up.
func TestSlowBody(t *testing.T) {
	o, err := NewOrigins(nil)
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	srv := httptest.NewServer(Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// What Wrap has set is brought forward: 30 s are long for a test.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_, err := io.ReadAll(r.Body)
		failed <- err
		w.WriteHeader(http.StatusRequestTimeout)
	}), o, quiet, time.Now))
	defer srv.Close()
	c, err := net.Dial("tcp", strings.TrimPrefix(srv.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc"); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; err == nil || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("body gave %v", err)
	}
}
