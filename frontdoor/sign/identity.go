// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"
)

// Limits of an identity, in bytes before escaping, and in groups.
const (
	MaxName    = 256
	MaxGroups  = 64
	MaxSession = 128
	MaxAddress = 64
)

// Identity is who asks: a typed principal ("local:ann", "service:vmhttp"),
// its typed groups, the login session and the address that the request came
// from. Session, Address and Groups may be empty.
type Identity struct {
	User    string
	Groups  []string
	Session string
	Address string
}

func (id Identity) check() error {
	if len(id.Groups) > MaxGroups {
		return fmt.Errorf("%w: %d groups", ErrIdentity, len(id.Groups))
	}
	if id.User == "" {
		return fmt.Errorf("%w: no user", ErrIdentity)
	}
	for _, f := range []struct {
		what, text string
		most       int
	}{{"user", id.User, MaxName}, {"session", id.Session, MaxSession}, {"address", id.Address, MaxAddress}} {
		if !plain(f.text, f.most) {
			return fmt.Errorf("%w: %s", ErrIdentity, f.what)
		}
	}
	for _, g := range id.Groups {
		if g == "" || !plain(g, MaxName) {
			return fmt.Errorf("%w: group", ErrIdentity)
		}
	}
	return nil
}

// plain is UTF-8 without control characters and of bounded length.
func plain(s string, most int) bool {
	return len(s) <= most && utf8.ValidString(s) &&
		!strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r >= 0x7f && r < 0xa0 })
}

func setIdentity(h http.Header, id Identity) {
	groups := make([]string, len(id.Groups))
	for i, g := range id.Groups {
		groups[i] = escape(g)
	}
	h[HeaderUser] = []string{escape(id.User)}
	h[HeaderGroups] = []string{strings.Join(groups, ",")}
	h[HeaderSession] = []string{escape(id.Session)}
	h[HeaderAddress] = []string{escape(id.Address)}
}

// readIdentity reads what setIdentity wrote; each header is there once, which
// requestBase has made sure of.
func readIdentity(h http.Header) (Identity, error) {
	var id Identity
	var err error
	for _, f := range []struct {
		name string
		into *string
	}{{HeaderUser, &id.User}, {HeaderSession, &id.Session}, {HeaderAddress, &id.Address}} {
		if *f.into, err = unescape(h[f.name][0]); err != nil {
			return Identity{}, err
		}
	}
	if list := h[HeaderGroups][0]; list != "" {
		parts := strings.SplitN(list, ",", MaxGroups+1)
		for _, part := range parts {
			g, err := unescape(part)
			if err != nil {
				return Identity{}, err
			}
			id.Groups = append(id.Groups, g)
		}
	}
	if err := id.check(); err != nil {
		return Identity{}, invalid("%v", err)
	}
	return id, nil
}

const hexDigits = "0123456789ABCDEF"

// escape percent-encodes every byte that could mean something in a header or
// in the list of groups, so that each identity has exactly one spelling.
func escape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c <= 0x20 || c >= 0x7f || strings.IndexByte(`%,;"\`, c) >= 0 {
			b.Write([]byte{'%', hexDigits[c>>4], hexDigits[c&15]})
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

// unescape undoes escape and refuses any other spelling.
func unescape(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", invalid("identity ends inside an escape")
		}
		hi, lo := strings.IndexByte(hexDigits, s[i+1]), strings.IndexByte(hexDigits, s[i+2])
		if hi < 0 || lo < 0 {
			return "", invalid("identity has a bad escape")
		}
		b.WriteByte(byte(hi<<4 | lo))
		i += 2
	}
	if escape(b.String()) != s {
		return "", invalid("identity is not spelled as it must be")
	}
	return b.String(), nil
}
