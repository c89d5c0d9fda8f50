// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"vmctl/frontdoor/problem"
)

// Origins decides which pages may act through a browser that is logged in:
// our own, and those of origins that are trusted by name.
type Origins struct {
	trusted []string
	unsafe  *http.CrossOriginProtection
}

// NewOrigins takes trusted origins such as "https://vm.example:8443".
func NewOrigins(trusted []string) (*Origins, error) {
	o := &Origins{unsafe: http.NewCrossOriginProtection()}
	for _, text := range trusted {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "https" || u.Host == "" || u.String() != "https://"+u.Host {
			return nil, fmt.Errorf("origin %q is not https://host[:port]", text)
		}
		if err := o.unsafe.AddTrustedOrigin(text); err != nil {
			return nil, fmt.Errorf("origin %q: %w", text, err)
		}
		o.trusted = append(o.trusted, authority(u.Host))
	}
	o.unsafe.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { Refuse(w) }))
	return o, nil
}

// Protect refuses requests that change something and come from elsewhere.
func (o *Origins) Protect(next http.Handler) http.Handler { return o.unsafe.Handler(next) }

// Socket reports whether a WebSocket may be opened. It is a GET, which Protect
// lets pass, and the browser sets no other bar. Without an Origin it is not a
// page that asks: browsers always send one here.
func (o *Origins) Socket(r *http.Request) bool {
	given := r.Header["Origin"]
	if len(given) == 0 {
		return true
	}
	u, err := url.Parse(given[0])
	if len(given) > 1 || err != nil || u.Scheme != "https" || u.Host == "" {
		return false
	}
	from := authority(u.Host)
	return from == authority(r.Host) || slices.Contains(o.trusted, from)
}

// Refuse answers that the origin is not ours.
func Refuse(w http.ResponseWriter) {
	problem.Write(w, http.StatusForbidden, problem.OriginRefused, "sent by a page of another origin")
}

// authority spells a host and port in one way: lower case, no default port.
func authority(host string) string {
	if name, port, err := net.SplitHostPort(host); err == nil && port == "443" {
		host = name
		if strings.Contains(name, ":") {
			host = "[" + name + "]"
		}
	}
	return strings.ToLower(host)
}
