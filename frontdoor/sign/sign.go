// SPDX-License-Identifier: Apache-2.0

// Package sign carries an identity from the front door to the daemon inside
// an HTTP request, as RFC 9421 HTTP Message Signatures with HMAC-SHA256.
//
// The profile is as narrow as it can be: one label, one list of components in
// one order, one spelling of the parameters. What does not match byte for
// byte is refused, so there is nothing to negotiate and little to parse:
//
//	Content-Digest: sha-256=:...:
//	Vmctl-User: local:ann
//	Vmctl-Groups: local-group:ops,local-group:dev
//	Vmctl-Session: 1f0c...
//	Vmctl-Address: 192.0.2.7
//	Signature-Input: sig1=("@method" "@path" "@query" "content-digest"
//	  "vmctl-user" "vmctl-groups" "vmctl-session" "vmctl-address")
//	  ;created=N;expires=N;nonce="...";keyid="front";alg="hmac-sha256"
//	Signature: sig1=:...:
//
// Headers that are not listed (Idempotency-Key, If-Match, ...) are not signed:
// who could change them on this path owns one of its two ends.
package sign

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// MaxBody is the largest body in bytes that may be signed as a whole.
const MaxBody = 1 << 20

// Lifetimes and tolerances of a signature.
const (
	// MaxLife is the longest time between created and expires.
	MaxLife = 30 * time.Second
	// life is what our own signer asks for: a request crosses a unix socket
	// of the same machine, so this only has to cover a loaded daemon.
	life = 15 * time.Second
	// skew is how far in the future created may lie; both ends read one clock.
	skew = 2 * time.Second
)

// Header names that make up a signed request, in canonical form.
const (
	HeaderDigest    = "Content-Digest"
	HeaderUser      = "Vmctl-User"
	HeaderGroups    = "Vmctl-Groups"
	HeaderSession   = "Vmctl-Session"
	HeaderAddress   = "Vmctl-Address"
	HeaderInput     = "Signature-Input"
	HeaderSignature = "Signature"
)

// Errors of Verify, to be told apart with errors.Is. ErrSize is also returned
// by Sign.
var (
	// ErrMissing: the request carries no signature at all.
	ErrMissing = errors.New("request is not signed")
	// ErrInvalid: the signature, the digest or a signed header does not fit.
	ErrInvalid = errors.New("signature does not fit the request")
	// ErrStale: made too long ago, in the future, or before the verifier.
	ErrStale = errors.New("signature is not of now")
	// ErrReplayed: this very signature was used before.
	ErrReplayed = errors.New("signature was used before")
	// ErrIdentity: Sign was given an identity that no header can carry.
	ErrIdentity = errors.New("identity cannot be signed")
	// ErrSize: the body is larger than MaxBody.
	ErrSize = errors.New("body is too large to be signed")
)

// Signer signs requests as the front door. It may be used concurrently.
type Signer struct {
	key []byte
	now func() time.Time
}

// NewSigner takes a key of at least KeySize bytes and the wall clock.
func NewSigner(key []byte, now func() time.Time) (*Signer, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	return &Signer{key: append([]byte(nil), key...), now: now}, nil
}

// Sign sets the identity, digest and signature headers of r, in place of any
// that were there. The method, path and query of r must be those that the
// daemon will receive; body must be all of the body, nil for none. A signed
// request can be sent once. Errors: ErrIdentity, ErrSize.
func (s *Signer) Sign(r *http.Request, body []byte, id Identity) error {
	if len(body) > MaxBody {
		return ErrSize
	}
	if err := id.check(); err != nil {
		return err
	}
	// RequestURI may be left from a request that is passed on; net/http sends this.
	path, query, err := target(r.URL.RequestURI())
	if err != nil {
		return err
	}
	p := newParams(s.now())
	setIdentity(r.Header, id)
	r.Header[HeaderDigest] = []string{digest(body)}
	base, err := requestBase(r, path, query, p)
	if err != nil {
		return err
	}
	r.Header[HeaderInput] = []string{label + "=" + p.String()}
	r.Header[HeaderSignature] = []string{label + "=:" + mac(s.key, base) + ":"}
	return nil
}

func newParams(now time.Time) params {
	p := params{created: now.Unix()}
	p.expires = p.created + int64(life/time.Second)
	binary.BigEndian.PutUint64(p.nonce[:8], uint64(now.UnixNano()))
	rand.Read(p.nonce[8:]) // never fails: the runtime ends the process instead
	return p
}

func mac(key []byte, base string) string {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(base))
	return base64.StdEncoding.EncodeToString(h.Sum(nil))
}

// digest is the Content-Digest of RFC 9530 for one SHA-256.
func digest(body []byte) string {
	sum := sha256.Sum256(body)
	return "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}
