// SPDX-License-Identifier: Apache-2.0

//go:build lab

package e2e

import (
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestStrangers sends the front door what only a stranger would: it is refused, with
// a code, before anything behind it is asked.
func TestStrangers(t *testing.T) {
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} // TestCommandLine pins it
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: time.Minute}
	for _, c := range []struct {
		what, path string
		header     http.Header
		status     int
		code       string
	}{
		{"a user that the browser names", "/api/v1/vms", http.Header{"X-User": {"local:admin"}}, 401, "unauthenticated"},
		{"the same in another spelling", "/api/v1/vms", http.Header{"X_User": {"local:admin"}}, 401, "unauthenticated"},
		{"a signed user", "/api/v1/vms", http.Header{"Vmctl-User": {"local:admin"}, "Signature": {"sig=:AAAA:"}}, 401, "unauthenticated"},
		{"a console from another origin", "/console/demo?token=x", http.Header{
			"Origin": {"https://evil.example"}, "Connection": {"Upgrade"}, "Upgrade": {"websocket"},
			"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="},
		}, 403, "originRefused"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", theChain.get("VMCTL_URL")+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = c.header
		res, err := client.Do(req)
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != c.status || !strings.Contains(string(body), `"code":"`+c.code+`"`) {
			t.Errorf("%s: %d %s %v, want %d %s", c.what, res.StatusCode, body, err, c.status, c.code)
		}
	}
}
