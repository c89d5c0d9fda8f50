// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"strings"
	"testing"
)

// The test request of RFC 9421 appendix B.2 and the shared secret of B.1.5.
const (
	rfcBody   = `{"hello": "world"}`
	rfcSecret = "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ=="
	rfcSHA512 = "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:"
)

func rfcRequest(t *testing.T) *http.Request {
	t.Helper()
	r := httptest.NewRequest("POST", "/foo?param=Value&Pet=dog", strings.NewReader(rfcBody))
	r.Host = "example.com"
	r.Header.Set("Date", "Tue, 20 Apr 2021 02:07:55 GMT")
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Content-Digest", rfcSHA512)
	r.Header.Set("Content-Length", "18")
	return r
}

// rfcBase resolves as requestBase does, and @authority, which our profile
// leaves out because the daemon has no name of its own.
func rfcBase(t *testing.T, r *http.Request, names []string, params string) string {
	t.Helper()
	path, query, err := target(r.RequestURI)
	if err != nil {
		t.Fatal(err)
	}
	base, err := signatureBase(names, params, func(name string) ([]string, error) {
		switch name {
		case "@authority":
			return []string{r.Host}, nil
		case "@method":
			return []string{r.Method}, nil
		case "@path":
			return []string{path}, nil
		case "@query":
			return []string{query}, nil
		}
		return r.Header[textproto.CanonicalMIMEHeaderKey(name)], nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return base
}

// B.2.5: signing a request using hmac-sha256.
func TestRFC9421HMAC(t *testing.T) {
	params := `("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"`
	base := rfcBase(t, rfcRequest(t), []string{"date", "@authority", "content-type"}, params)
	want := `"date": Tue, 20 Apr 2021 02:07:55 GMT
"@authority": example.com
"content-type": application/json
"@signature-params": ("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"`
	if base != want {
		t.Errorf("signature base is\n%s\nwant\n%s", base, want)
	}
	key, err := base64.StdEncoding.DecodeString(rfcSecret)
	if err != nil {
		t.Fatal(err)
	}
	if got := mac(key, base); got != "pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=" {
		t.Errorf("signature is %s", got)
	}
}

// B.2.1 (minimal) and B.2.3 (full coverage): the signature bases.
func TestRFC9421Bases(t *testing.T) {
	minimal := `();created=1618884473;keyid="test-key-rsa-pss";nonce="b3k2pp5k7z-50gnwp.yemd"`
	if got := rfcBase(t, rfcRequest(t), nil, minimal); got != `"@signature-params": `+minimal {
		t.Errorf("minimal base is %s", got)
	}
	names := []string{"date", "@method", "@path", "@query", "@authority", "content-type", "content-digest", "content-length"}
	full := `("date" "@method" "@path" "@query" "@authority" "content-type" "content-digest" "content-length");created=1618884473;keyid="test-key-rsa-pss"`
	want := `"date": Tue, 20 Apr 2021 02:07:55 GMT
"@method": POST
"@path": /foo
"@query": ?param=Value&Pet=dog
"@authority": example.com
"content-type": application/json
"content-digest": ` + rfcSHA512 + `
"content-length": 18
"@signature-params": ` + full
	if got := rfcBase(t, rfcRequest(t), names, full); got != want {
		t.Errorf("full base is\n%s\nwant\n%s", got, want)
	}
}

// Sections 2.1, 2.2.6 and 2.2.7: fields are trimmed and joined; an empty
// field has an empty value; a target without a query has the query "?".
func TestRFC9421Components(t *testing.T) {
	r := httptest.NewRequest("GET", "/path", nil)
	r.Header["Cache-Control"] = []string{"max-age=60", "   must-revalidate"}
	r.Header["X-Empty-Header"] = []string{""}
	got := rfcBase(t, r, []string{"@path", "@query", "cache-control", "x-empty-header"}, "()")
	want := "\"@path\": /path\n\"@query\": ?\n\"cache-control\": max-age=60, must-revalidate\n\"x-empty-header\": \n\"@signature-params\": ()"
	if got != want {
		t.Errorf("base is\n%s\nwant\n%s", got, want)
	}
	r = httptest.NewRequest("GET", "/path?param=value&foo=bar&baz=bat%2Dman", nil)
	if _, q, _ := target(r.RequestURI); q != "?param=value&foo=bar&baz=bat%2Dman" {
		t.Errorf("query is %s", q)
	}
}

// RFC 9530 appendix B and D: the same object with and without its line end.
func TestRFC9530Digest(t *testing.T) {
	for body, want := range map[string]string{
		`{"hello": "world"}` + "\n": "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:",
		`{"hello": "world"}`:        "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:",
		"":                          "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:",
	} {
		if got := digest([]byte(body)); got != want {
			t.Errorf("digest of %q is %s, want %s", body, got, want)
		}
	}
}
