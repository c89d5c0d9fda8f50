// SPDX-License-Identifier: Apache-2.0

package login

import (
	"net/http"
	"time"
)

// CookieName has the prefix that makes browsers insist on Secure, Path=/ and
// no Domain: no other host or path can set or shadow it.
const CookieName = "__Host-vmctl"

const secretText = 43 // base64url of 32 bytes

// readCookie returns the one session cookie of a request.
func readCookie(r *http.Request) (string, bool) {
	all := r.CookiesNamed(CookieName)
	if len(all) != 1 || len(all[0].Value) != secretText {
		return "", false
	}
	return all[0].Value, true
}

// cookie carries a session's secret; without one it deletes the cookie.
// SameSite is Lax so that a link to the interface finds one logged in; what
// changes anything is a POST, which Lax does not send from elsewhere.
func cookie(secret string, life time.Duration) *http.Cookie {
	c := &http.Cookie{Name: CookieName, Value: secret, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode}
	c.MaxAge = int(life / time.Second)
	if secret == "" {
		c.MaxAge = -1
	}
	return c
}
