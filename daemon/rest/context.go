// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"context"
	"net/http"
	"regexp"

	"github.com/google/uuid"

	"vmctl/daemon/api"
)

type requestKey struct{}

// requestState is what one request carries through all layers.
type requestState struct {
	id     string
	r      *http.Request
	code   api.Code // of the problem that it was answered with
	denied bool     // authorize said no
}

var requestIDPattern = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// withRequest gives a request its id: the caller's if it is short and plain,
// since it goes into logs and rows, else a new one.
func withRequest(r *http.Request) *http.Request {
	id := r.Header.Get("X-Request-Id")
	if !requestIDPattern.MatchString(id) {
		id = uuid.NewString()
	}
	st := &requestState{id: id}
	st.r = r.WithContext(context.WithValue(r.Context(), requestKey{}, st))
	return st.r
}

// rebind gives the request another context.
func rebind(r *http.Request, ctx context.Context) *http.Request {
	r = r.WithContext(ctx)
	stateOf(ctx).r = r
	return r
}

// stateOf returns nil outside of a request.
func stateOf(ctx context.Context) *requestState {
	st, _ := ctx.Value(requestKey{}).(*requestState)
	return st
}

func requestID(ctx context.Context) string {
	if st := stateOf(ctx); st != nil {
		return st.id
	}
	return ""
}

func requestOf(ctx context.Context) *http.Request { return stateOf(ctx).r }
