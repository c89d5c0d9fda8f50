// SPDX-License-Identifier: Apache-2.0

// Package problem writes the front door's own errors as RFC 9457 documents,
// in the same form as the daemon's, so that a client needs one reader.
package problem

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// Code names a kind of error; clients decide by it and never by a text.
// Where the daemon has the same kind, the code is the same.
type Code string

// The codes that the front door gives of itself.
const (
	InvalidRequest   Code = "invalidRequest"   // the request cannot be read
	UnknownField     Code = "unknownField"     // a field that does not exist
	NotFound         Code = "notFound"         // no such path, or not to be seen
	MethodNotAllowed Code = "methodNotAllowed" // the path exists, not with this method
	Unauthenticated  Code = "unauthenticated"  // no login session, or a wrong password
	OriginRefused    Code = "originRefused"    // sent by a page of another origin
	TooLarge         Code = "tooLarge"         // a body above its limit
	TooSlow          Code = "tooSlow"          // the body did not arrive in time
	LimitExceeded    Code = "limitExceeded"    // too many at once, or too often
	UpgradeRequired  Code = "upgradeRequired"  // only a WebSocket may be opened here
	Unavailable      Code = "unavailable"      // vmctld or a console is not there now
	Internal         Code = "internal"         // a defect; the log has the request id
)

// HeaderRequestID is the header that names a request in logs and answers.
const HeaderRequestID = "X-Request-Id"

// Problem is the body of an error.
type Problem struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail"`
	Code      Code   `json:"code"`
	RequestID string `json:"requestId"`
}

// Write answers with a problem. The request id is the one already in the
// answer's header.
func Write(w http.ResponseWriter, status int, code Code, detail string) {
	h := w.Header()
	body, err := json.Marshal(Problem{"about:blank", http.StatusText(status), status, detail, code, h.Get(HeaderRequestID)})
	if err != nil { // a struct of strings always encodes
		panic(err)
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Del("ETag")
	w.WriteHeader(status)
	_, _ = w.Write(body) // whom should one tell
}

// RetryAfter is Write with the time after which to try again, in whole
// seconds, at least one.
func RetryAfter(w http.ResponseWriter, status int, code Code, after time.Duration, detail string) {
	w.Header().Set("Retry-After", strconv.Itoa(max(1, int((after+time.Second-1)/time.Second))))
	Write(w, status, code, detail)
}
