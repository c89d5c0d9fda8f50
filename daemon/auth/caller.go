// SPDX-License-Identifier: Apache-2.0

// Package auth says who asks (peer credentials, signed identities, sessions)
// and what they may do. It is the only place where either is decided.
package auth

import (
	"context"
	"fmt"
	"strings"
)

// Principal is a typed name of a user, a group or a service, such as
// "unix:1000", "local:admin" or "unix-group:vmctl-admin". Two principals are
// the same only when their types are.
type Principal string

// Service principals and types that mean something here.
const (
	// ServiceFront is vmhttp itself, when it registers sessions.
	ServiceFront Principal = "service:vmhttp"

	typeUnix       = "unix:"
	typeUnixGroup  = "unix-group:"
	typeLocal      = "local:"
	typeLocalGroup = "local-group:"
	typeOIDC       = "oidc:"
	typeOIDCGroup  = "oidc-group:"

	maxPrincipal = 256 // bytes
)

// UnixUser returns the principal of a user of this host.
func UnixUser(uid uint32) Principal { return Principal(fmt.Sprintf("%s%d", typeUnix, uid)) }

// UnixGroup returns the principal of a group of this host.
func UnixGroup(name string) Principal { return Principal(typeUnixGroup + name) }

// frontUser reports whether vmhttp may speak for p: never for a user of this
// host, which is known by its socket alone.
func (p Principal) frontUser() bool {
	return p.typed(typeLocal) || p.typed(typeOIDC)
}

// frontGroup is frontUser for groups.
func (p Principal) frontGroup() bool {
	return p.typed(typeLocalGroup) || p.typed(typeOIDCGroup)
}

func (p Principal) typed(prefix string) bool {
	rest, ok := strings.CutPrefix(string(p), prefix)
	if !ok || rest == "" || len(p) > maxPrincipal {
		return false
	}
	return strings.IndexFunc(rest, func(r rune) bool { return r <= ' ' || r == 0x7f }) < 0
}

// Caller is who sent one request.
type Caller struct {
	Principal Principal
	Groups    []Principal
	Session   string // login session at vmhttp; empty for local callers
	Address   string // of the browser, as vmhttp claims it
	PeerUID   uint32 // of the process at the other end of the socket
}

// Names returns the principal and its groups: whatever a grant can match.
func (c *Caller) Names() []Principal {
	return append([]Principal{c.Principal}, c.Groups...)
}

type callerKey struct{}

// WithCaller returns a context that carries c.
func WithCaller(ctx context.Context, c *Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerOf returns the caller of ctx, or nil when nobody was identified.
func CallerOf(ctx context.Context) *Caller {
	c, _ := ctx.Value(callerKey{}).(*Caller)
	return c
}
