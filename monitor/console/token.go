// SPDX-License-Identifier: Apache-2.0

package console

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"time"

	"vmctl/monitor/console/proto"
)

// MaxGrants is how many unused grants there can be at a time.
const MaxGrants = 64

// ErrGrants is a grant when there are too many already.
var ErrGrants = errors.New("too many console tokens that nobody used")

// Grant admits one viewer that brings the token with this hash.
type Grant struct {
	Hash    [sha256.Size]byte
	Session string
	User    string
	Expires time.Time
	Write   bool // may type
}

// tokens is the grants that are open, and the hashes of some that are over, so
// that a viewer learns why it is not let in. It has no lock.
type tokens struct {
	open []Grant
	used [MaxGrants][sha256.Size]byte
	next int // in used
}

// add opens a grant. Those that have expired make room.
func (t *tokens) add(g Grant, now time.Time) error {
	if len(t.open) >= MaxGrants {
		t.drop(func(o *Grant) bool { return now.After(o.Expires) })
	}
	if len(t.open) >= MaxGrants {
		return ErrGrants
	}
	t.open = append(t.open, g)
	return nil
}

// drop forgets the grants for which gone is true.
func (t *tokens) drop(gone func(*Grant) bool) {
	kept := t.open[:0]
	for i := range t.open {
		if !gone(&t.open[i]) {
			kept = append(kept, t.open[i])
		}
	}
	clear(t.open[len(kept):])
	t.open = kept
}

// take uses a token up. The session that a viewer names must be the one that the
// token was given to. Every hash is compared in the same time, also after one
// that matches.
func (t *tokens) take(token []byte, session string, now time.Time) (Grant, proto.Code) {
	hash := sha256.Sum256(token)
	found, used := -1, 0
	for i := range t.open {
		if subtle.ConstantTimeCompare(hash[:], t.open[i].Hash[:]) == 1 {
			found = i
		}
	}
	for i := range t.used {
		used |= subtle.ConstantTimeCompare(hash[:], t.used[i][:])
	}
	if found < 0 {
		if used == 1 {
			return Grant{}, proto.TokenUsed
		}
		return Grant{}, proto.TokenUnknown
	}
	g := t.open[found]
	if g.Session != session {
		return Grant{}, proto.TokenUnknown
	}
	if now.After(g.Expires) {
		return Grant{}, proto.TokenExpired
	}
	t.open = append(t.open[:found], t.open[found+1:]...)
	t.used[t.next] = g.Hash
	t.next = (t.next + 1) % len(t.used)
	return g, 0
}
