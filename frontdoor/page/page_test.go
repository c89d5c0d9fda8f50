// SPDX-License-Identifier: Apache-2.0

package page_test

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"vmctl/frontdoor/page"
)

func TestPage(t *testing.T) {
	files := fstest.MapFS{
		"index.html": {Data: []byte("<index>")}, "assets/app-1a2b.js": {Data: []byte("code")}, "favicon.svg": {Data: []byte("<svg/>")},
		".vite/manifest.json": {Data: []byte("secret")}, "assets/.hidden": {Data: []byte("secret")},
	}
	const index, forever = "no-store", "public, max-age=31536000, immutable"
	for path, want := range map[string]struct {
		status      int
		body, cache string
	}{
		"/ui/":                           {200, "<index>", index},
		"/ui/index.html":                 {200, "<index>", index},
		"/ui/vms/web":                    {200, "<index>", index},
		"/ui/vms/web?tab=console":        {200, "<index>", index},
		"/ui/assets/app-1a2b.js":         {200, "code", forever},
		"/ui/favicon.svg":                {200, "<svg/>", "no-cache"},
		"/ui/assets/app-old.js":          {404, "notFound", "no-store"},
		"/ui/assets/":                    {404, "notFound", "no-store"},
		"/ui/.vite/manifest.json":        {404, "notFound", "no-store"},
		"/ui/assets/.hidden":             {404, "notFound", "no-store"},
		"/ui/missing.js":                 {404, "notFound", "no-store"},
		"/ui/assets/../../../etc/passwd": {404, "notFound", "no-store"},
	} {
		w := httptest.NewRecorder()
		page.Handler(files).ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != want.status || !strings.Contains(w.Body.String(), want.body) || w.Header().Get("Cache-Control") != want.cache {
			t.Errorf("%s: %d %q, %q", path, w.Code, w.Body, w.Header().Get("Cache-Control"))
		}
	}
	w := httptest.NewRecorder()
	page.Handler(files).ServeHTTP(w, httptest.NewRequest("POST", "/ui/", nil))
	if w.Code != 405 {
		t.Errorf("POST: %d", w.Code)
	}
}

// The copy that the build compressed goes to those alone who take it.
func TestCompressed(t *testing.T) {
	files := fstest.MapFS{"assets/app.js": {Data: []byte("code")}, "assets/app.js.gz": {Data: []byte("\x1f\x8bpacked")}}
	for accept, packed := range map[string]bool{
		"": false, "br": false, "gzip;q=0": false, "gzip; q=0.0": false, "x-gzip": false, "br, deflate": false,
		"gzip": true, "br, GZIP": true, "deflate,gzip;q=0.5": true,
	} {
		r := httptest.NewRequest("GET", "/ui/assets/app.js", nil)
		r.Header.Set("Accept-Encoding", accept)
		w := httptest.NewRecorder()
		page.Handler(files).ServeHTTP(w, r)
		h, body := w.Header(), w.Body.String()
		if got := h.Get("Content-Encoding") == "gzip"; got != packed || strings.HasSuffix(body, "packed") != packed {
			t.Errorf("%q: encoding %q, body %q", accept, h.Get("Content-Encoding"), body)
		}
		if !strings.HasPrefix(h.Get("Content-Type"), "text/javascript") || h.Get("Vary") != "Accept-Encoding" {
			t.Errorf("%q: type %q, vary %q", accept, h.Get("Content-Type"), h.Get("Vary"))
		}
	}
}

func TestWithoutBuild(t *testing.T) {
	w := httptest.NewRecorder()
	page.Handler(fstest.MapFS{".gitkeep": {}}).ServeHTTP(w, httptest.NewRequest("GET", "/ui/", nil))
	if w.Code != 200 || !strings.Contains(w.Body.String(), "without its web interface") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// A link in the folder of --ui leads nowhere outside of it.
func TestFolder(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "x.txt")); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	w := httptest.NewRecorder()
	page.Handler(root.FS()).ServeHTTP(w, httptest.NewRequest("GET", "/ui/x.txt", nil))
	if w.Code != 404 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
