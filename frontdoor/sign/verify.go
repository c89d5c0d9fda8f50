// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"crypto/hmac"
	"crypto/subtle"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Verifier checks signed requests at the daemon. It may be used concurrently.
type Verifier struct {
	key   []byte
	now   func() time.Time
	start time.Time

	mu   sync.Mutex
	seen replayCache // guarded by mu
}

// NewVerifier takes a key of at least KeySize bytes and the wall clock; it
// refuses whatever was signed before this call. now should return times with
// a monotonic reading (as time.Now does), else a clock that is set back makes
// fresh signatures stale.
func NewVerifier(key []byte, now func() time.Time) (*Verifier, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	return &Verifier{key: append([]byte(nil), key...), now: now, start: now(),
		seen: newReplayCache(maxSeen)}, nil
}

// Verify returns the identity that r was signed for. r must be as received
// from the network (RequestURI and headers untouched) and body all of its
// body. It accepts each signature once. Errors: ErrMissing, ErrInvalid,
// ErrStale, ErrReplayed, ErrSize.
func (v *Verifier) Verify(r *http.Request, body []byte) (Identity, error) {
	p, err := v.authentic(r, body)
	if err != nil {
		return Identity{}, err
	}
	id, err := readIdentity(r.Header)
	if err != nil {
		return Identity{}, err
	}
	// The clock is read under the lock, so that the cache sees time go one way.
	v.mu.Lock()
	defer v.mu.Unlock()
	now := v.now()
	if err := v.fresh(p, now); err != nil {
		return Identity{}, err
	}
	if err := v.seen.add(p, now); err != nil {
		return Identity{}, err
	}
	return id, nil
}

// authentic checks all that does not depend on time.
func (v *Verifier) authentic(r *http.Request, body []byte) (params, error) {
	var none params
	input, given := r.Header[HeaderInput], r.Header[HeaderSignature]
	if len(input) == 0 && len(given) == 0 {
		return none, ErrMissing
	}
	if len(input) != 1 || len(given) != 1 {
		return none, invalid("not exactly one signature")
	}
	if len(body) > MaxBody {
		return none, ErrSize
	}
	if name, ok := lookalike(r.Header); ok {
		return none, invalid("header %q looks like one of ours", name)
	}
	p, err := parseInput(input[0])
	if err != nil {
		return none, err
	}
	path, query, err := target(r.RequestURI)
	if err != nil {
		return none, err
	}
	base, err := requestBase(r, path, query, p)
	if err != nil {
		return none, err
	}
	// Comparing the encoded text leaves one spelling of each signature.
	want := label + "=:" + mac(v.key, base) + ":"
	if !hmac.Equal([]byte(want), []byte(given[0])) {
		return none, invalid("wrong signature")
	}
	if subtle.ConstantTimeCompare([]byte(digest(body)), []byte(r.Header[HeaderDigest][0])) != 1 {
		return none, invalid("body has another digest")
	}
	return p, nil
}

// lookalike finds a header that some other reader could take for an identity
// header: same name with underscores, or a name of ours that is not in use.
func lookalike(h http.Header) (string, bool) {
	for name := range h {
		switch name {
		case HeaderUser, HeaderGroups, HeaderSession, HeaderAddress:
			continue
		}
		if strings.HasPrefix(strings.ReplaceAll(strings.ToLower(name), "_", "-"), "vmctl-") {
			return name, true
		}
	}
	return "", false
}

// fresh compares ages, not instants: the age of the signature by the wall
// clock of now against the age of the verifier by the monotonic one. So a
// wall clock that was set back after the start does not lock everybody out.
func (v *Verifier) fresh(p params, now time.Time) error {
	made := p.made()
	if p.expires <= p.created || p.expires-p.created > int64(MaxLife/time.Second) {
		return invalid("lifetime is not within %s", MaxLife)
	}
	if now.Unix() >= p.expires || made.After(now.Add(skew)) {
		return ErrStale
	}
	if wallAge := now.Round(0).Sub(made); wallAge > now.Sub(v.start) {
		return ErrStale
	}
	return nil
}
