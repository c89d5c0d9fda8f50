// SPDX-License-Identifier: Apache-2.0

// Package page serves the web interface: a single-page application whose
// files are compiled in, or in a folder while somebody works on it.
package page

import (
	"errors"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"

	"vmctl/frontdoor/problem"
)

// Prefix is where the interface lives.
const Prefix = "/ui/"

const index = "index.html"

// missing is shown when the program was built without the interface.
const missing = `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>vmctl</title>
<h1>vmctl</h1>
<p>This program was built without its web interface. Build it with <code>make ui build</code>,
or name a built one with <code>vmhttp --ui FOLDER</code>.</p>
<p>The API is at <a href="/api/v1/openapi.json">/api/v1</a>, logging in at <a href="/auth/v1/openapi.json">/auth/v1</a>.</p>
</html>
`

// Handler serves files below Prefix. Files below assets/ have a hash in their
// name and are kept by browsers for ever; index.html is never kept, and stands
// for every path that is not a file, so that deep links can be reloaded.
func Handler(files fs.FS) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			problem.Write(w, http.StatusMethodNotAllowed, problem.MethodNotAllowed, r.Method+" is not for a page")
			return
		}
		name := strings.TrimPrefix(r.URL.Path, Prefix)
		if name == "" || name == index {
			serveIndex(w, r, files)
			return
		}
		f, err := open(files, name)
		switch {
		case err == nil:
			defer f.Close()
			serveFile(w, r, files, name, f)
		case path.Ext(name) != "" || strings.HasPrefix(name, "assets/"):
			problem.Write(w, http.StatusNotFound, problem.NotFound, "no such file")
		default:
			serveIndex(w, r, files)
		}
	})
}

// open opens a regular file, none of whose folders is hidden.
func open(files fs.FS, name string) (io.ReadSeekCloser, error) {
	if !fs.ValidPath(name) || strings.HasPrefix(name, ".") || strings.Contains(name, "/.") {
		return nil, fs.ErrNotExist
	}
	f, err := files.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	file, ok := f.(io.ReadSeekCloser)
	if !ok || !info.Mode().IsRegular() {
		return nil, errors.Join(fs.ErrNotExist, f.Close())
	}
	return file, nil
}

// serveFile sends a file, or the compressed copy that the build put beside it.
func serveFile(w http.ResponseWriter, r *http.Request, files fs.FS, name string, f io.ReadSeeker) {
	w.Header().Set("Cache-Control", "no-cache")
	if strings.HasPrefix(name, "assets/") {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	if packed, err := open(files, name+".gz"); err == nil {
		defer packed.Close()
		w.Header().Set("Vary", "Accept-Encoding")
		if takesGzip(r) {
			w.Header().Set("Content-Encoding", "gzip")
			f = packed
		}
	}
	// The type is that of the name: with an encoding set it would be guessed
	// from compressed bytes where the name says nothing.
	if kind := mime.TypeByExtension(path.Ext(name)); kind != "" {
		w.Header().Set("Content-Type", kind)
	}
	http.ServeContent(w, r, name, time.Time{}, f)
}

// takesGzip reports whether the client names gzip and does not refuse it.
func takesGzip(r *http.Request) bool {
	for part := range strings.SplitSeq(strings.Join(r.Header["Accept-Encoding"], ","), ",") {
		coding, weight, _ := strings.Cut(part, ";")
		if strings.EqualFold(strings.TrimSpace(coding), "gzip") {
			q, weighted := strings.CutPrefix(strings.ReplaceAll(weight, " ", ""), "q=")
			return !weighted || strings.Trim(q, "0.") != ""
		}
	}
	return false
}

func serveIndex(w http.ResponseWriter, r *http.Request, files fs.FS) {
	w.Header().Set("Cache-Control", "no-store")
	f, err := open(files, index)
	if errors.Is(err, fs.ErrNotExist) {
		http.ServeContent(w, r, index, time.Time{}, strings.NewReader(missing))
		return
	}
	if err != nil {
		problem.Write(w, http.StatusInternalServerError, problem.Internal, "the interface cannot be read")
		return
	}
	defer f.Close()
	http.ServeContent(w, r, index, time.Time{}, f)
}
