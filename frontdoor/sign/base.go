// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"net/http"
	"net/textproto"
	"strings"
)

// target splits a request target into path and query ("?" included, alone
// when there is none).
func target(uri string) (path, query string, err error) {
	if !strings.HasPrefix(uri, "/") || strings.ContainsAny(uri, "\r\n\x00# ") {
		return "", "", invalid("request target is not a plain path")
	}
	path, query, _ = strings.Cut(uri, "?")
	return path, "?" + query, nil
}

// requestBase is the signature base of our profile for r.
func requestBase(r *http.Request, path, query string, p params) (string, error) {
	return signatureBase(components[:], p.String(), func(name string) ([]string, error) {
		switch name {
		case "@method":
			return []string{r.Method}, nil
		case "@path":
			return []string{path}, nil
		case "@query":
			return []string{query}, nil
		}
		values := r.Header[textproto.CanonicalMIMEHeaderKey(name)]
		if len(values) != 1 {
			return nil, invalid("%s is there %d times", name, len(values))
		}
		return values, nil
	})
}

// signatureBase is the string of RFC 9421 section 2.5: a line for each name
// with what value says about it, then the parameters.
func signatureBase(names []string, params string, value func(string) ([]string, error)) (string, error) {
	var b strings.Builder
	for _, name := range names {
		values, err := value(name)
		if err != nil {
			return "", err
		}
		b.WriteString(`"` + name + `": `)
		for i, v := range values {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(strings.Trim(v, " \t"))
		}
		b.WriteByte('\n')
	}
	b.WriteString(`"@signature-params": ` + params)
	return b.String(), nil
}
