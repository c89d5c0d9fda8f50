// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// browser does over HTTPS what the interface does: a cookie from a login,
// JSON, and a WebSocket with an Origin. It shares no code with our clients.
type browser struct {
	url  string
	http *http.Client
}

// newBrowser trusts one certificate, by its SHA-256.
func newBrowser(url, pin string) (*browser, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	t := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{
		InsecureSkipVerify: true, // the pin below is the verification
		VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
			if len(raw) == 0 || sum(raw[0]) != pin {
				return errors.New("the certificate is not the one that vmhttp made")
			}
			return nil
		},
	}}
	return &browser{url, &http.Client{Transport: t, Jar: jar, Timeout: time.Minute}}, nil
}

func (b *browser) close() { b.http.CloseIdleConnections() }

// sum is a certificate's fingerprint as vmhttp prints it.
func sum(der []byte) string {
	h := sha256.Sum256(der)
	return hex.EncodeToString(h[:])
}

// fingerprint asks a server for its certificate's SHA-256.
func fingerprint(addr string) (string, error) {
	c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		return "", err
	}
	defer c.Close()
	return sum(c.ConnectionState().PeerCertificates[0].Raw), nil
}

// do sends a request and decodes the answer; an error names the problem's code.
func (b *browser) do(ctx context.Context, method, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, b.url+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Origin", b.url)
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	res, err := b.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return err
	}
	if res.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, res.Status, bytes.TrimSpace(text))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(text, out)
}

func (b *browser) login(ctx context.Context, user, password string) error {
	return b.do(ctx, "POST", "/auth/v1/login", map[string]string{"user": user, "password": password}, nil)
}

// create makes a VM from the stock kernel and the initramfs with a shell.
func (b *browser) create(ctx context.Context, name string) error {
	return b.do(ctx, "POST", "/api/v1/vms", map[string]any{
		"name": name,
		"spec": map[string]any{
			"vcpus":       1,
			"memoryBytes": 512 << 20,
			"boot":        map[string]string{"kernel": "vmlinuz", "initrd": "initrd.img", "cmdline": "console=ttyS0"},
		},
	}, nil)
}

// verb asks for a change of state and waits until its task has ended.
func (b *browser) verb(ctx context.Context, name, verb string) error {
	var t struct {
		Task struct {
			ID, State string
			Error     *struct{ Code, Detail string }
		}
	}
	if err := b.do(ctx, "POST", "/api/v1/vms/"+name+":"+verb, struct{}{}, &t); err != nil {
		return err
	}
	for t.Task.State == "queued" || t.Task.State == "running" {
		if err := b.do(ctx, "GET", "/api/v1/tasks/"+t.Task.ID+"?wait=30s", nil, &t.Task); err != nil {
			return err
		}
	}
	if e := t.Task.Error; e != nil {
		return fmt.Errorf("%s (%s)", e.Detail, e.Code)
	}
	if t.Task.State != "succeeded" {
		return fmt.Errorf("the task is %q", t.Task.State)
	}
	return nil
}

// console opens the console's WebSocket with a token.
func (b *browser) console(ctx context.Context, name string) (*websocket.Conn, error) {
	var grant struct{ Token string }
	if err := b.do(ctx, "POST", "/api/v1/vms/"+name+":consoleToken", struct{}{}, &grant); err != nil {
		return nil, err
	}
	c, res, err := websocket.Dial(ctx, strings.Replace(b.url, "https", "wss", 1)+"/console/"+name+"?token="+grant.Token,
		&websocket.DialOptions{
			HTTPClient:   &http.Client{Transport: b.http.Transport, Jar: b.http.Jar},
			HTTPHeader:   http.Header{"Origin": {b.url}},
			Subprotocols: []string{"vmctl.console.v1"},
		})
	if err != nil {
		if res != nil && res.Body != nil {
			text, rerr := io.ReadAll(io.LimitReader(res.Body, 4096))
			err = errors.Join(fmt.Errorf("%w: %s", err, text), rerr)
		}
		return nil, err
	}
	c.SetReadLimit(1 << 20)
	return c, nil
}
