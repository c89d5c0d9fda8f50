// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/http"
	"testing"
	"time"
)

// Whatever parses is spelled as we spell it, so no two texts mean the same.
func FuzzParseInput(f *testing.F) {
	good := label + "=" + newParams(time.Unix(1795435200, 5)).String()
	f.Add(good)
	f.Add(good + " ")
	f.Add(good[:len(good)-1])
	f.Add(label + "=();created=1")
	f.Add(label + "=" + componentList + `;created=1;expires=2;nonce="";keyid="front";alg="hmac-sha256"`)
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parseInput(s)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("error is %v", err)
			}
			return
		}
		if got := label + "=" + p.String(); got != s {
			t.Fatalf("%q parses but is written %q", s, got)
		}
	})
}

func FuzzUnescape(f *testing.F) {
	for _, s := range []string{"local:ann", "a%20b", "%", "%2", "%2c", "%2C", "\xff", "%41"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		plain, err := unescape(s)
		if err == nil && escape(plain) != s {
			t.Fatalf("%q reads as %q, which is written %q", s, plain, escape(plain))
		}
		if back, err := unescape(escape(s)); err != nil || back != s {
			t.Fatalf("%q comes back as %q, %v", s, back, err)
		}
	})
}

// No headers whatever get in without the key, or make the verifier panic.
func FuzzVerify(f *testing.F) {
	now := func() time.Time { return time.Unix(1795435200, 5) }
	v, err := NewVerifier(bytes.Repeat([]byte{1}, KeySize), now)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("GET", "/v1", "local:admin", "", label+"="+newParams(now()).String(), label+"=:AAAA:", "")
	f.Add("GET", "*", "", ",", label, ":", "x")
	f.Fuzz(func(t *testing.T, method, uri, user, groups, input, signature, body string) {
		r := &http.Request{Method: method, RequestURI: uri, Header: http.Header{
			HeaderUser: {user}, HeaderGroups: {groups}, HeaderSession: {""}, HeaderAddress: {""},
			HeaderDigest: {digest([]byte(body))}, HeaderInput: {input}, HeaderSignature: {signature}}}
		if id, err := v.Verify(r, []byte(body)); err == nil {
			t.Fatalf("got in as %+v", id)
		}
	})
}

func paramsAt(ns int64, tail byte) params {
	p := params{created: ns / 1e9, expires: ns/1e9 + 15}
	binary.BigEndian.PutUint64(p.nonce[:8], uint64(ns))
	p.nonce[23] = tail
	return p
}

// A full cache forgets the oldest and refuses from then on what is no younger.
func TestReplayCacheFull(t *testing.T) {
	const second = int64(1e9)
	at := 1795435200 * second
	now := time.Unix(0, at+10)
	c := newReplayCache(3)
	for i := range int64(4) {
		if err := c.add(paramsAt(at+i, 1), now); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.nonces) != 3 || len(c.order) != 3 {
		t.Fatalf("cache holds %d and %d", len(c.nonces), len(c.order))
	}
	if err := c.add(paramsAt(at, 1), now); !errors.Is(err, ErrStale) {
		t.Errorf("a forgotten nonce gives %v", err)
	}
	if err := c.add(paramsAt(at+1, 1), now); !errors.Is(err, ErrReplayed) {
		t.Errorf("a kept nonce gives %v", err)
	}
	if err := c.add(paramsAt(at+40*second, 1), now.Add(40*time.Second)); err != nil {
		t.Error(err)
	}
	if len(c.nonces) != 1 {
		t.Errorf("%d are kept after they expired", len(c.nonces))
	}
}
