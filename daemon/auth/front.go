// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"vmctl/daemon/api"
	"vmctl/daemon/auth/peer"
	"vmctl/frontdoor/sign"
)

// Front identifies callers behind vmhttp: the process must be vmhttp's, the
// request signed, the user of a kind that logs in there, the session known.
type Front struct {
	Verifier *sign.Verifier
	Sessions *Sessions
	UID      uint32 // vmhttp's
}

// OpenFront reads the key that vmctld shares with vmhttp.
func OpenFront(keyFile string, uid uint32, sessions *Sessions, now func() time.Time) (*Front, error) {
	key, err := sign.ReadKey(keyFile)
	if err != nil {
		return nil, fmt.Errorf("front key: %w", err)
	}
	v, err := sign.NewVerifier(key, now)
	if err != nil {
		return nil, fmt.Errorf("front key: %w", err)
	}
	return &Front{Verifier: v, Sessions: sessions, UID: uid}, nil
}

// Identify returns who is behind a request. The error is an *api.Error.
func (f *Front) Identify(r *http.Request, body []byte, cred peer.Cred) (*Caller, error) {
	if cred.UID != f.UID {
		return nil, &api.Error{Code: api.CodeForbidden, Detail: "this socket is for the front door alone"}
	}
	id, err := f.Verifier.Verify(r, body)
	if err != nil {
		return nil, signatureError(err)
	}
	c := &Caller{Principal: Principal(id.User), Session: id.Session, Address: id.Address, PeerUID: cred.UID}
	if c.Principal == ServiceFront {
		if id.Session != "" || len(id.Groups) > 0 {
			return nil, &api.Error{Code: api.CodeSignatureInvalid, Detail: "a service has neither session nor groups"}
		}
		return c, nil
	}
	if !c.Principal.frontUser() {
		return nil, &api.Error{Code: api.CodeSignatureInvalid, Detail: "the front door cannot speak for this kind of user"}
	}
	for _, g := range id.Groups {
		if !Principal(g).frontGroup() {
			return nil, &api.Error{Code: api.CodeSignatureInvalid, Detail: "the front door cannot speak for this kind of group"}
		}
		c.Groups = append(c.Groups, Principal(g))
	}
	if !f.Sessions.Valid(id.Session, c.Principal) {
		return nil, &api.Error{Code: api.CodeSessionUnknown, Detail: "the login session has ended or was never registered"}
	}
	return c, nil
}

func signatureError(err error) error {
	e := &api.Error{Code: api.CodeSignatureInvalid, Detail: "the signature does not fit the request", Err: err}
	switch {
	case errors.Is(err, sign.ErrMissing):
		e.Code, e.Detail = api.CodeSignatureMissing, "the request is not signed"
	case errors.Is(err, sign.ErrStale):
		e.Code, e.Detail = api.CodeSignatureStale, "the signature is not of now"
	case errors.Is(err, sign.ErrReplayed):
		e.Code, e.Detail = api.CodeSignatureReplayed, "the signature was used before"
	case errors.Is(err, sign.ErrSize):
		e.Code, e.Detail = api.CodeTooLarge, "the body is too large"
	}
	return e
}
