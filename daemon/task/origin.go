// SPDX-License-Identifier: Apache-2.0

// Package task holds what every asynchronous write shares: who asked for it,
// the key that makes it idempotent, the queue of one VM, and waiting for an end.
package task

import (
	"context"
	"sync/atomic"
)

// Origin is the request that a change came from. It travels in the context, so
// that the store can write it into the same transaction as the change: the
// audit row and the answer for an idempotency key are there exactly when the
// change is.
type Origin struct {
	Actor     string // principal
	Session   string
	Address   string
	RequestID string
	Method    string
	Path      string
	Claim     *Claim // nil without an Idempotency-Key

	audited atomic.Bool
}

// Audited reports whether an audit row for this request exists, and marks that
// it does from now on.
func (o *Origin) Audited() bool { return o.audited.Swap(true) }

// Unaudited takes the mark back, when the transaction with the row failed.
func (o *Origin) Unaudited() { o.audited.Store(false) }

// Claim is an idempotency key and what it was used for.
type Claim struct {
	Scope string   // principal, method and path
	Key   string   // as the client sent it
	Hash  [32]byte // of the body
}

type originKey struct{}

// WithOrigin returns a context that carries o.
func WithOrigin(ctx context.Context, o *Origin) context.Context {
	return context.WithValue(ctx, originKey{}, o)
}

// OriginOf returns the origin of ctx, or nil: then the daemon acts by itself.
func OriginOf(ctx context.Context) *Origin {
	o, _ := ctx.Value(originKey{}).(*Origin)
	return o
}
