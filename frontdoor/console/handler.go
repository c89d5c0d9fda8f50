// SPDX-License-Identifier: Apache-2.0

// Package console lets a browser see a VM's console: it joins a WebSocket to
// the socket of the VM's monitor, which decides by the token who is let in.
// Frames pass through whole, after their type and size were looked at.
package console

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"vmctl/frontdoor/edge"
	"vmctl/frontdoor/login"
	"vmctl/frontdoor/problem"
	"vmctl/frontdoor/proxy"
	"vmctl/frontdoor/upstream"
	"vmctl/monitor/console/proto"
)

// Limits on consoles that are open at the same time.
const (
	maxOpen       = 512
	maxPerSession = 16
)

const dialTimeout = 3 * time.Second

var (
	// vmName is what a uuid and a name have in common; vmctld knows better.
	vmName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	vmUUID = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	tokens = regexp.MustCompile(`^[A-Za-z0-9._~-]{1,128}$`)
)

// Handler serves /console/{id}?token=. Each console counts as one open
// WebSocket, until Wait returns.
type Handler struct {
	Dir     string // where the monitors' sockets are: {uuid}.sock
	Daemon  *upstream.Client
	Logins  *login.Service
	Keeper  *login.Keeper
	Origins *edge.Origins
	Log     *slog.Logger

	mu   sync.Mutex
	open map[string]int // by session; guarded by mu
	all  int            // guarded by mu
	busy sync.WaitGroup
}

// Wait returns when no console is open any more. The server must not accept
// new ones by then: hijacked connections are not its own.
func (h *Handler) Wait() { h.busy.Wait() }

// ServeHTTP answers with a problem while it is still HTTP: methodNotAllowed,
// originRefused, unauthenticated, invalidRequest, upgradeRequired,
// limitExceeded, unavailable, and vmctld's own, such as notFound. After the
// upgrade every end is a close code with a text.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", "GET")
		problem.Write(w, http.StatusMethodNotAllowed, problem.MethodNotAllowed, "a console is opened with GET")
		return
	}
	if !h.Origins.Socket(r) {
		edge.Refuse(w)
		return
	}
	a := h.Logins.Require(w, r)
	if a == nil {
		return
	}
	token, offset, ok := asked(w, r)
	if !ok {
		return
	}
	if !h.enter(a.ID) {
		problem.RetryAfter(w, http.StatusTooManyRequests, problem.LimitExceeded, time.Second, "too many consoles are open")
		return
	}
	defer h.leave(a.ID)
	uuid, ok := h.resolve(w, r, a)
	if !ok {
		return
	}
	h.join(w, r, a, uuid, &proto.Hello{Token: []byte(token), Session: a.ID, Offset: offset})
}

// asked checks what a console is asked for with: a token, and the offset where
// the viewer's copy of the log ends, if it has one.
func asked(w http.ResponseWriter, r *http.Request) (token string, offset uint64, ok bool) {
	if !vmName.MatchString(r.PathValue("id")) {
		problem.Write(w, http.StatusNotFound, problem.NotFound, "no such VM")
		return "", 0, false
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil || len(q["token"]) != 1 || !tokens.MatchString(q.Get("token")) {
		problem.Write(w, http.StatusBadRequest, problem.InvalidRequest, "one token is needed, as :consoleToken gives it")
		return "", 0, false
	}
	if q.Has("offset") {
		if offset, err = strconv.ParseUint(q.Get("offset"), 10, 64); err != nil || len(q["offset"]) != 1 {
			problem.Write(w, http.StatusBadRequest, problem.InvalidRequest, "the offset is a number of bytes")
			return "", 0, false
		}
	}
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		w.Header().Set("Upgrade", "websocket")
		problem.Write(w, http.StatusUpgradeRequired, problem.UpgradeRequired, "a console is a WebSocket")
		return "", 0, false
	}
	for _, offered := range r.Header["Sec-Websocket-Protocol"] {
		for p := range strings.SplitSeq(offered, ",") {
			if strings.TrimSpace(p) == proto.Subprotocol {
				return q.Get("token"), offset, true
			}
		}
	}
	problem.Write(w, http.StatusBadRequest, problem.InvalidRequest, "the WebSocket's protocol must be "+proto.Subprotocol)
	return "", 0, false
}

func (h *Handler) enter(session string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open == nil {
		h.open = make(map[string]int)
	}
	if h.all >= maxOpen || h.open[session] >= maxPerSession {
		return false
	}
	h.all++
	h.open[session]++
	h.busy.Add(1)
	return true
}

func (h *Handler) leave(session string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all--
	if h.open[session]--; h.open[session] == 0 {
		delete(h.open, session)
	}
	h.busy.Done()
}

// resolve asks vmctld, as the user, for the VM: who may not see it gets the
// same answer as for one that is not there.
func (h *Handler) resolve(w http.ResponseWriter, r *http.Request, a *login.Active) (uuid string, ok bool) {
	requestID := w.Header().Get(problem.HeaderRequestID)
	err := h.Keeper.Ensure(r.Context(), a)
	var res *upstream.Answer
	if err == nil {
		res, err = h.Daemon.Do(r.Context(), http.MethodGet, "/v1/vms/"+r.PathValue("id"), nil, proxy.Caller(a, h.Keeper, r), requestID)
	}
	switch {
	case errors.Is(err, login.ErrNoSession), errors.Is(err, upstream.ErrEnded):
		problem.Write(w, http.StatusUnauthorized, problem.Unauthenticated, "the login session has ended")
		return "", false
	case err != nil:
		h.Log.Error("vmctld does not answer", "op", "console", "request", requestID, "err", err)
		proxy.Away(w, err)
		return "", false
	case res.Status != http.StatusOK:
		w.Header().Set("Content-Type", res.Header.Get("Content-Type"))
		w.WriteHeader(res.Status)
		_, _ = w.Write(res.Body)
		return "", false
	}
	var vm struct{ ID string }
	if err := json.Unmarshal(res.Body, &vm); err != nil || !vmUUID.MatchString(vm.ID) {
		h.Log.Error("vmctld's answer is not a VM", "op", "console", "request", requestID, "err", err)
		problem.Write(w, http.StatusInternalServerError, problem.Internal, "this is a defect; the log has more")
		return "", false
	}
	return vm.ID, true
}

// join connects both sides and stays until one of them or the session ends.
func (h *Handler) join(w http.ResponseWriter, r *http.Request, a *login.Active, uuid string, hello *proto.Hello) {
	dialer := net.Dialer{Timeout: dialTimeout}
	monitor, err := dialer.DialContext(r.Context(), "unix", filepath.Join(h.Dir, uuid+".sock"))
	if err != nil {
		h.Log.Warn("no console to connect to", "vm", uuid, "op", "console", "err", err)
		problem.RetryAfter(w, http.StatusServiceUnavailable, problem.Unavailable, time.Second, "the VM's console is not served now")
		return
	}
	defer monitor.Close()
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols:       []string{proto.Subprotocol},
		InsecureSkipVerify: true, // Origins has checked it, with its own list
	})
	if err != nil {
		h.Log.Warn("no upgrade", "vm", uuid, "op", "console", "err", err) // Accept has answered
		return
	}
	defer ws.CloseNow()
	hello.Address = login.Address(r).String()
	why := relay(a.Context, ws, monitor, hello, func() {
		if err := h.Keeper.Touch(context.WithoutCancel(r.Context()), a.ID); err != nil {
			h.Log.Error("use of a session is not noted", "session", a.ID, "op", "touch", "err", err)
		}
	})
	h.Log.Info("console closed", "vm", uuid, "session", a.ID, "code", int(why.code), "reason", why.text)
}
