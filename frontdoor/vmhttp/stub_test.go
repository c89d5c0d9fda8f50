// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"vmctl/frontdoor/sign"
)

const (
	vmName = "web"
	vmUUID = "0b8fcb2e-7b0c-4a3a-9d6e-5a1f0c2d3e4f"
)

// vmctld is a stand-in that checks every request as the real one does.
type vmctld struct {
	t    *testing.T
	path string
	key  []byte
	srv  *http.Server
	done chan struct{}

	mu       sync.Mutex
	verifier *sign.Verifier
	sessions map[string]chan struct{} // closed when the session ends
	refused  []error                  // requests whose signature did not fit
	puts     int
}

func startVmctld(t *testing.T, dir string, key []byte) *vmctld {
	d := &vmctld{t: t, path: filepath.Join(dir, "front.sock"), key: key, sessions: make(map[string]chan struct{})}
	d.start()
	t.Cleanup(d.stop)
	return d
}

// start begins with a new verifier and no session, as after a restart.
func (d *vmctld) start() {
	v, err := sign.NewVerifier(d.key, time.Now)
	if err != nil {
		d.t.Fatal(err)
	}
	ln, err := net.Listen("unix", d.path)
	if err != nil {
		d.t.Fatal(err)
	}
	d.mu.Lock()
	d.verifier, d.sessions = v, make(map[string]chan struct{})
	d.mu.Unlock()
	d.srv, d.done = &http.Server{Handler: d}, make(chan struct{})
	go func(srv *http.Server, done chan struct{}) {
		defer close(done)
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			d.t.Error(err)
		}
	}(d.srv, d.done)
}

func (d *vmctld) stop() {
	if d.srv == nil {
		return
	}
	if err := d.srv.Close(); err != nil {
		d.t.Error(err)
	}
	<-d.done
	d.srv = nil
}

func (d *vmctld) live() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var ids []string
	for id := range d.sessions {
		ids = append(ids, id)
	}
	return ids
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"type":"about:blank","status":%d,"code":%q}`, status, code)
}

func (d *vmctld) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		refuse(w, 400, "invalidRequest")
		return
	}
	d.mu.Lock()
	verifier := d.verifier
	d.mu.Unlock()
	id, err := verifier.Verify(r, body)
	if err != nil {
		d.mu.Lock()
		d.refused = append(d.refused, err)
		d.mu.Unlock()
		code := map[error]string{sign.ErrMissing: "signatureMissing", sign.ErrStale: "signatureStale", sign.ErrReplayed: "signatureReplayed"}
		for is, text := range code {
			if errors.Is(err, is) {
				refuse(w, 401, text)
				return
			}
		}
		refuse(w, 401, "signatureInvalid")
		return
	}
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /v1/sessions/{id}", func(w http.ResponseWriter, r *http.Request) { d.putSession(w, r, id, body) })
	mux.HandleFunc("DELETE /v1/sessions/{id}", func(w http.ResponseWriter, r *http.Request) { d.endSession(w, r, id) })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		ended := d.sessions[id.Session]
		d.mu.Unlock()
		if ended == nil {
			refuse(w, 401, "sessionUnknown")
			return
		}
		d.asUser(w, r, id, body, ended)
	})
	mux.ServeHTTP(w, r)
}

func (d *vmctld) putSession(w http.ResponseWriter, r *http.Request, id sign.Identity, body []byte) {
	var in struct {
		Principal, Address string
		ExpiresAt          time.Time
	}
	if err := json.Unmarshal(body, &in); err != nil || id.User != "service:vmhttp" || in.Principal == "" || !in.ExpiresAt.After(time.Now()) {
		refuse(w, 422, "invalidRequest")
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.puts++
	if d.sessions[r.PathValue("id")] == nil {
		d.sessions[r.PathValue("id")] = make(chan struct{})
	}
	w.WriteHeader(204)
}

func (d *vmctld) endSession(w http.ResponseWriter, r *http.Request, id sign.Identity) {
	if id.User != "service:vmhttp" {
		refuse(w, 403, "forbidden")
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.sessions[r.PathValue("id")]; s != nil {
		close(s)
		delete(d.sessions, r.PathValue("id"))
	}
	w.WriteHeader(204)
}

// seen is what a request looked like when it arrived.
type seen struct {
	Method, URI, Body string
	Header            http.Header
	Identity          sign.Identity
}

func (d *vmctld) asUser(w http.ResponseWriter, r *http.Request, id sign.Identity, body []byte, ended chan struct{}) {
	switch {
	case r.URL.Path == "/v1/vms/"+vmName || r.URL.Path == "/v1/vms/"+vmUUID:
		fmt.Fprintf(w, `{"id":%q,"name":%q}`, vmUUID, vmName)
	case r.URL.Path == "/v1/vms/hidden":
		refuse(w, 404, "notFound")
	case r.URL.Path == "/v1/events":
		events(w, r, ended)
	case r.URL.Path == "/v1/made":
		w.Header().Set("Location", "/v1/vms/x")
		w.Header().Set("Set-Cookie", "__Host-vmctl=stolen")
		w.Header().Set("Content-Security-Policy", "default-src *")
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.WriteHeader(201)
	default:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(seen{r.Method, r.RequestURI, string(body), r.Header, id})
	}
}

// events sends one event and then waits for the end of the session.
func events(w http.ResponseWriter, r *http.Request, ended chan struct{}) {
	w.Header().Set("Content-Type", "text/event-stream")
	fmt.Fprint(w, "id: 1\nevent: host.started\ndata: {}\n\n")
	_ = http.NewResponseController(w).Flush()
	select {
	case <-ended:
		fmt.Fprint(w, "event: dropped\ndata: {}\n\n")
	case <-r.Context().Done():
	}
}
