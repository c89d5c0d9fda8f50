// SPDX-License-Identifier: Apache-2.0

// Package edge is the outermost layer of the front door: TLS, limits on
// connections, and what holds for every request and every answer.
package edge

import "net/http"

// policy allows scripts from our own files alone. Styles may be inline: the
// component library sets style attributes. Nothing may frame us, and no form
// is ever sent by the browser itself.
const policy = "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; " +
	"font-src 'self'; connect-src 'self'; object-src 'none'; frame-src 'none'; worker-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// headers go with every answer.
var headers = [...][2]string{
	{"Content-Security-Policy", policy},
	{"Strict-Transport-Security", "max-age=31536000"},
	{"X-Content-Type-Options", "nosniff"},
	{"Referrer-Policy", "no-referrer"},
	{"Cross-Origin-Opener-Policy", "same-origin"},
	{"Cross-Origin-Resource-Policy", "same-origin"},
	{"Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"},
}

// Secured reports whether a header is set by us alone: an answer from behind
// must not bring its own.
func Secured(name string) bool {
	for _, h := range headers {
		if h[0] == name {
			return true
		}
	}
	return false
}

func setHeaders(h http.Header) {
	for _, one := range headers {
		h.Set(one[0], one[1])
	}
}
