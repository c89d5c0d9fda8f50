// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"encoding/base64"
	"encoding/binary"
	"strconv"
	"strings"
	"time"
)

const (
	label     = "sig1"
	keyID     = "front"
	algorithm = "hmac-sha256"
	nonceSize = 24
	nonceText = nonceSize / 3 * 4
	maxInput  = 512 // bytes of a Signature-Input value; ours has about 250
)

// components is the only list that is signed and accepted, in this order.
var components = [...]string{"@method", "@path", "@query", "content-digest",
	"vmctl-user", "vmctl-groups", "vmctl-session", "vmctl-address"}

var componentList = `("` + strings.Join(components[:], `" "`) + `")`

// params are the signature parameters. Times are seconds since the epoch, as
// the RFC has them; the nonce begins with the same instant in nanoseconds,
// big endian, so that a verifier can tell a signature made just before its
// own start from one made just after. The other 16 bytes are random.
type params struct {
	created, expires int64
	nonce            [nonceSize]byte
}

func (p params) String() string {
	return componentList +
		";created=" + strconv.FormatInt(p.created, 10) +
		";expires=" + strconv.FormatInt(p.expires, 10) +
		`;nonce="` + base64.RawURLEncoding.EncodeToString(p.nonce[:]) +
		`";keyid="` + keyID + `";alg="` + algorithm + `"`
}

// made is the instant in the nonce.
func (p params) made() time.Time {
	return time.Unix(0, int64(binary.BigEndian.Uint64(p.nonce[:8])))
}

// parseInput reads a Signature-Input value. It accepts exactly what String
// writes after the label, so a value that parses has one meaning only.
func parseInput(v string) (params, error) {
	var p params
	if len(v) > maxInput {
		return p, invalid("signature-input has %d bytes", len(v))
	}
	rest, ok := strings.CutPrefix(v, label+"="+componentList+";created=")
	if !ok {
		return p, invalid("signature-input names other components")
	}
	created, rest, ok1 := strings.Cut(rest, ";expires=")
	expires, rest, ok2 := strings.Cut(rest, `;nonce="`)
	nonce, rest, ok3 := strings.Cut(rest, `"`)
	if !ok1 || !ok2 || !ok3 || rest != `;keyid="`+keyID+`";alg="`+algorithm+`"` {
		return p, invalid("signature-input has other parameters")
	}
	if p.created, ok1 = parseSeconds(created); !ok1 {
		return p, invalid("created is not a time")
	}
	if p.expires, ok1 = parseSeconds(expires); !ok1 {
		return p, invalid("expires is not a time")
	}
	if err := p.setNonce(nonce); err != nil {
		return p, err
	}
	return p, nil
}

// parseSeconds takes 1 to 10 digits without a leading zero: until 2286.
func parseSeconds(s string) (int64, bool) {
	if len(s) == 0 || len(s) > 10 || s[0] == '0' || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

func (p *params) setNonce(s string) error {
	if len(s) != nonceText {
		return invalid("nonce has %d characters", len(s))
	}
	// The decoder skips line ends; a header cannot hold them, nor may we.
	if strings.ContainsAny(s, "\r\n") {
		return invalid("nonce has a line end")
	}
	if _, err := base64.RawURLEncoding.Strict().Decode(p.nonce[:], []byte(s)); err != nil {
		return invalid("nonce is not base64url")
	}
	if p.made().Unix() != p.created {
		return invalid("nonce is of another second than created")
	}
	return nil
}
