// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"iter"
	"net/url"
)

// maxPages bounds a walk: at 100 items a page it is a million of them.
const maxPages = 10000

var errCursor = errors.New("the server's list does not end: it gives cursors without end")

// pages walks all pages of a list. get fetches the page at a cursor and
// returns its items and the next cursor, empty at the end.
func pages[T any](ctx context.Context, get func(ctx context.Context, cursor string) ([]T, string, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		cursor := ""
		for range maxPages {
			items, next, err := get(ctx, cursor)
			if err != nil {
				yield(zero, err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			if next == cursor {
				break
			}
			cursor = next
		}
		yield(zero, errCursor)
	}
}

func set(q url.Values, name, value string) {
	if value != "" {
		q.Set(name, value)
	}
}
