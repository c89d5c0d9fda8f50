// SPDX-License-Identifier: Apache-2.0

package client

import (
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"vmctl/daemon/api"
)

// Error is a problem that the server answered with, or that the client found
// before it asked (Status is 0 then).
type Error struct {
	Status    int      // of HTTP
	Code      api.Code // empty when what answered was not vmctl, such as a proxy
	Detail    string
	RequestID string
	Items     []api.ProblemItem // offending fields
}

// Sentinels for errors.Is, which compares codes.
var (
	ErrNotFound      = &Error{Code: api.CodeNotFound}
	ErrExists        = &Error{Code: api.CodeExists}
	ErrConflict      = &Error{Code: api.CodeConflict}
	ErrStateConflict = &Error{Code: api.CodeStateConflict}
	// ErrPreconditionFailed says that somebody changed the VM meanwhile.
	ErrPreconditionFailed = &Error{Code: api.CodePreconditionFailed}

	ErrUnauthenticated = &Error{Code: api.CodeUnauthenticated}
	ErrForbidden       = &Error{Code: api.CodeForbidden}
	ErrUnavailable     = &Error{Code: api.CodeUnavailable}
	ErrNameInvalid     = &Error{Code: api.CodeNameInvalid}
)

// maxProblem bounds the body of an error, in bytes.
const maxProblem = 64 << 10

// Error returns "detail (code, request ID)".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Detail)
	for _, item := range e.Items {
		if !strings.Contains(e.Detail, item.Message) {
			fmt.Fprintf(&b, "; %s: %s", item.Location, item.Message)
		}
	}
	var about []string
	if e.Code != "" {
		about = append(about, string(e.Code))
	}
	if e.RequestID != "" {
		about = append(about, "request "+e.RequestID)
	}
	if len(about) > 0 {
		fmt.Fprintf(&b, " (%s)", strings.Join(about, ", "))
	}
	return b.String()
}

// Is reports whether target is an *Error with the same code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code != "" && t.Code == e.Code
}

// problem makes an error of an answer that is not a success.
func problem(res *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(res.Body, maxProblem))
	e := &Error{Status: res.StatusCode, RequestID: res.Header.Get("X-Request-Id")}
	var p api.Problem
	if err == nil && isJSON(res.Header) && json.Unmarshal(body, &p) == nil && p.Code != "" {
		e.Code, e.Detail, e.Items = p.Code, p.Detail, p.Errors
		if p.RequestID != "" {
			e.RequestID = p.RequestID
		}
	}
	if e.Detail == "" {
		e.Detail = fmt.Sprintf("the server answered %d %s", res.StatusCode, http.StatusText(res.StatusCode))
	}
	return e
}

// isJSON accepts application/json and its kin such as application/problem+json.
func isJSON(h http.Header) bool {
	kind, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && (kind == "application/json" || strings.HasSuffix(kind, "+json"))
}
