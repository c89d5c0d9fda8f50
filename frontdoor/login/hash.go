// SPDX-License-Identifier: Apache-2.0

package login

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// The cost of a password: 19 MiB, two passes, one lane, as OWASP has it for
// argon2id. About 40 ms of one core.
const (
	argonMemory = 19 * 1024 // KiB
	argonTime   = 2
	argonLanes  = 1
	saltSize    = 16
	hashSize    = 32
)

var errHash = errors.New("stored password hash cannot be read")

var phcPrefix = fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$", argon2.Version, argonMemory, argonTime, argonLanes)

// nobody is the hash that is checked when there is no such account. Its salt
// and hash are all zero: no password is known that fits.
var nobody = phcPrefix + base64.RawStdEncoding.EncodeToString(make([]byte, saltSize)) +
	"$" + base64.RawStdEncoding.EncodeToString(make([]byte, hashSize))

func derive(password string, salt []byte) []byte {
	return argon2.IDKey([]byte(password), salt, argonTime, argonMemory, argonLanes, hashSize)
}

func hashPassword(password string) string {
	salt := make([]byte, saltSize)
	rand.Read(salt) // never fails: the runtime ends the process instead
	return phcPrefix + base64.RawStdEncoding.EncodeToString(salt) +
		"$" + base64.RawStdEncoding.EncodeToString(derive(password, salt))
}

func matchPassword(phc, password string) (bool, error) {
	rest, ok := strings.CutPrefix(phc, phcPrefix)
	salt64, hash64, ok2 := strings.Cut(rest, "$")
	salt, err1 := base64.RawStdEncoding.DecodeString(salt64)
	hash, err2 := base64.RawStdEncoding.DecodeString(hash64)
	if !ok || !ok2 || err1 != nil || err2 != nil || len(hash) != hashSize {
		return false, errHash
	}
	return subtle.ConstantTimeCompare(derive(password, salt), hash) == 1, nil
}

// maxWaiting is how many may wait for the one hash at a time: about 1.5 s.
const maxWaiting = 32

// hasher checks one password at a time, so that logins from strangers take at
// most one core and 19 MiB, however many there are.
type hasher struct {
	waiting chan struct{} // holds a token for each who waits or works
	working chan struct{} // holds a token for the one who works
}

func newHasher() *hasher {
	return &hasher{make(chan struct{}, maxWaiting+1), make(chan struct{}, 1)}
}

// match is matchPassword in its turn. Errors: ErrBusy, ctx's.
func (h *hasher) match(ctx context.Context, phc, password string) (bool, error) {
	select {
	case h.waiting <- struct{}{}:
		defer func() { <-h.waiting }()
	default:
		return false, ErrBusy
	}
	select {
	case h.working <- struct{}{}:
		defer func() { <-h.working }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	return matchPassword(phc, password)
}
