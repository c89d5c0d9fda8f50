// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"encoding/base64"
	"strings"

	"vmctl/daemon/api"
)

// A cursor is the list that it belongs to and the last item of a page, opaque
// to clients: it holds nothing that a caller could not have asked for.

func encodeCursor(list, last string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(list + ":" + last))
}

func decodeCursor(list, cursor string) (string, error) {
	if cursor == "" {
		return "", nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(cursor)
	last, ok := strings.CutPrefix(string(raw), list+":")
	if err != nil || !ok || last == "" {
		return "", &api.Error{Code: api.CodeInvalidRequest, Field: "query.cursor", Detail: "not a cursor of this list"}
	}
	return last, nil
}
