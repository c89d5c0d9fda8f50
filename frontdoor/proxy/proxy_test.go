// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"vmctl/frontdoor/sign"
)

func TestReadBody(t *testing.T) {
	for name, tc := range map[string]struct {
		body   io.Reader
		status int
		code   string
	}{
		"slow":      {iotest.ErrReader(os.ErrDeadlineExceeded), 408, "tooSlow"},
		"broken":    {iotest.ErrReader(errors.New("broken")), 400, "invalidRequest"},
		"too large": {io.LimitReader(zeros{}, sign.MaxBody+1), 413, "tooLarge"},
		"just fits": {io.LimitReader(zeros{}, sign.MaxBody), 200, ""},
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/api/v1/vms", tc.body)
		if _, ok := readBody(w, r); ok != (tc.status == 200) || w.Code != tc.status || !strings.Contains(w.Body.String(), tc.code) {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// Only names that are listed pass, in the one spelling that net/http makes.
func TestForward(t *testing.T) {
	in := http.Header{"Accept": {"a", "b"}, "If-Match": {`"1"`}, "If_match": {"x"}, "if-match": {"x"}, "Cookie": {"c"}, "X-User": {"u"},
		"X-Request-Id": {"theirs"}, "Vmctl-User": {"u"}, "Transfer-Encoding": {"chunked"}, "Upgrade": {"h2c"}, "Te": {"trailers"}}
	want := http.Header{"Accept": {"a", "b"}, "If-Match": {`"1"`}, "X-Request-Id": {"ours"}, "User-Agent": {""}}
	if got := forward(in, "ours"); !reflect.DeepEqual(got, want) {
		t.Errorf("forwarded %v", got)
	}
}

func TestSessionLimit(t *testing.T) {
	p := New(nil, nil, nil, nil)
	for range maxPerSession {
		if !p.enter("a") {
			t.Fatal("refused within the limit")
		}
	}
	if p.enter("a") || !p.enter("b") {
		t.Error("the limit is not that of each session")
	}
	p.leave("b")
	for range maxPerSession {
		p.leave("a")
	}
	if len(p.busy) != 0 {
		t.Errorf("left: %v", p.busy)
	}
}
