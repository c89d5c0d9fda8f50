// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vmctl/daemon/api"
	"vmctl/daemon/client"
)

func quiet(*testing.T) *log.Logger { return log.New(io.Discard, "", 0) }

func TestCallsOnTheSocket(t *testing.T) {
	var (
		mu  sync.Mutex
		got []string
	)
	c := onUnix(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		got = append(got, strings.TrimSpace(r.Method+" "+r.URL.RequestURI()+" "+string(body)))
		if hasKey := r.Header.Get("Idempotency-Key") != ""; hasKey != (r.Method == http.MethodPost) {
			t.Errorf("%s %s: Idempotency-Key sent: %v", r.Method, r.URL, hasKey)
		}
		answer(w, http.StatusOK, map[string]any{"task": map[string]any{"id": "t1"}, "id": "x", "name": "web", "newInV1": 1})
	}))
	ctx := t.Context()
	calls := []func() error{
		func() error { _, err := c.VM(ctx, "web"); return err },
		func() error { _, err := c.Seed(ctx, "web"); return err },
		func() error { _, err := c.DeleteVM(ctx, "web"); return err },
		func() error { _, err := c.PowerOn(ctx, "web"); return err },
		func() error { _, err := c.PowerOff(ctx, "web"); return err },
		func() error { _, err := c.Reset(ctx, "web"); return err },
		func() error { _, err := c.ConsoleToken(ctx, "web", api.ConsoleReadOnly); return err },
		func() error { _, err := c.Task(ctx, "t1"); return err },
		func() error { _, err := c.Host(ctx); return err },
		func() error { _, err := c.Root(ctx); return err },
		func() error { _, err := c.WhoAmI(ctx); return err },
		func() error { _, err := c.VMPage(ctx, "a b", 5); return err },
		func() error {
			spec := api.DefaultVMSpec()
			spec.Boot.Kernel = "vmlinuz"
			_, err := c.CreateVM(ctx, api.VMCreate{Name: "web", Spec: spec})
			return err
		},
	}
	for _, call := range calls {
		if err := call(); err != nil {
			t.Error(err)
		}
	}
	want := []string{
		"GET /v1/vms/web", "GET /v1/vms/web/seed", "DELETE /v1/vms/web", "POST /v1/vms/web:powerOn", "POST /v1/vms/web:powerOff",
		"POST /v1/vms/web:reset", `POST /v1/vms/web:consoleToken {"mode":"ro"}`, "GET /v1/tasks/t1", "GET /v1/host",
		"GET /v1", "GET /v1/whoami", "GET /v1/vms?cursor=a+b&limit=5",
		`POST /v1/vms {"name":"web","spec":{"vcpus":1,"memoryBytes":536870912,"boot":{"kernel":"vmlinuz"},"console":"serial","onReset":"restart","onPoweroff":"stop","onCrash":"stop"}}`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("the server saw\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestOddNamesAreNotSent(t *testing.T) {
	c := onUnix(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { t.Errorf("the server saw %s", r.URL) }))
	for _, name := range []string{"", "..", "a/b", "web:powerOn", "web%3ApowerOn", "Web", "a?b", "a b", "ä"} {
		if _, err := c.VM(t.Context(), name); !errors.Is(err, client.ErrNameInvalid) {
			t.Errorf("VM(%q) gave %v", name, err)
		}
		if _, err := c.PowerOn(t.Context(), name); !errors.Is(err, client.ErrNameInvalid) {
			t.Errorf("PowerOn(%q) gave %v", name, err)
		}
	}
	for _, id := range []string{"", "a/b", "..", "a?wait=1s"} {
		if _, err := c.Task(t.Context(), id); err == nil {
			t.Errorf("Task(%q) was accepted", id)
		}
	}
}

func TestProblems(t *testing.T) {
	cases := []struct {
		name   string
		answer func(w http.ResponseWriter)
		want   string
		is     error
	}{
		{"problem", func(w http.ResponseWriter) { refuse(w, 404, api.CodeNotFound, "no VM web") },
			"no VM web (notFound, request r-1)", client.ErrNotFound},
		{"fields", func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(422)
			fmt.Fprint(w, `{"code":"invalidRequest","detail":"bad","errors":[{"location":"body.name","message":"too long"}]}`)
		}, "bad; body.name: too long (invalidRequest)", &client.Error{Code: api.CodeInvalidRequest}},
		{"proxy", func(w http.ResponseWriter) { w.WriteHeader(502); fmt.Fprint(w, "<html>") },
			"the server answered 502 Bad Gateway", nil},
		{"redirect", func(w http.ResponseWriter) { w.Header().Set("Location", "http://192.0.2.1/"); w.WriteHeader(302) },
			"the server answered 302 Found", nil},
		{"other server", func(w http.ResponseWriter) { w.Header().Set("Content-Type", "text/html"); fmt.Fprint(w, "<html>") },
			`what answers is not vmctl: "text/html" instead of JSON`, nil},
		{"not JSON", func(w http.ResponseWriter) { w.Header().Set("Content-Type", "application/json"); fmt.Fprint(w, "{") },
			"decode the answer", nil},
		{"flood", func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.CopyN(w, zeros{}, 17<<20)
		}, "larger than 16 MiB", nil},
		{"flood in an error", func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(500)
			_, _ = io.CopyN(w, zeros{}, 1<<20)
		}, "the server answered 500", nil},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			var calls atomic.Int32
			c := onUnix(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { calls.Add(1); tc.answer(w) }))
			_, err := c.Host(t.Context())
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("error %v, want %q in it", err, tc.want)
			}
			if tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("%v is not %v", err, tc.is)
			}
			if errors.Is(err, client.ErrForbidden) {
				t.Error("it is also ErrForbidden")
			}
			if calls.Load() != 1 {
				t.Errorf("the server was asked %d times", calls.Load())
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// lossy does what a POST asks once for each key and loses the first answers.
type lossy struct {
	how func(w http.ResponseWriter)

	mu       sync.Mutex
	lose     int
	seen     map[string]bool // keys
	attempts int
}

func newLossy(lose int, how func(w http.ResponseWriter)) *lossy {
	return &lossy{how: how, lose: lose, seen: map[string]bool{}}
}

// counts returns the number of different keys and of attempts so far.
func (l *lossy) counts() (keys, attempts int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.seen), l.attempts
}

func (l *lossy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = io.Copy(io.Discard, r.Body)
	l.attempts++
	l.seen[r.Header.Get("Idempotency-Key")] = true
	if l.lose > 0 {
		l.lose--
		l.how(w)
		return
	}
	answer(w, http.StatusCreated, api.VM{Name: "web"})
}

func TestLostAnswersAreAskedForWithTheSameKey(t *testing.T) {
	ways := map[string]func(t *testing.T) func(w http.ResponseWriter){
		"no answer": func(t *testing.T) func(http.ResponseWriter) {
			return func(w http.ResponseWriter) { cut(t, w) }
		},
		"half an answer": func(*testing.T) func(http.ResponseWriter) {
			return func(w http.ResponseWriter) {
				w.Header().Set("Content-Length", "100")
				w.Header().Set("Content-Type", "application/json")
				fmt.Fprint(w, `{"name":`)
			}
		},
		"still at it": func(*testing.T) func(http.ResponseWriter) {
			return func(w http.ResponseWriter) { refuse(w, 409, api.CodeIdempotencyInFlight, "wait") }
		},
	}
	for name, how := range ways {
		t.Run(name, func(t *testing.T) {
			l := newLossy(2, how(t))
			c := onUnix(t, l)
			vm, err := c.CreateVM(t.Context(), api.VMCreate{Name: "web"})
			if err != nil || vm.Name != "web" {
				t.Fatalf("create gave %v, %v", vm, err)
			}
			if keys, attempts := l.counts(); keys != 1 || attempts != 3 {
				t.Errorf("%d keys in %d attempts, want one key in 3", keys, attempts)
			}
			_, err = c.CreateVM(t.Context(), api.VMCreate{Name: "web2"})
			if keys, _ := l.counts(); err != nil || keys != 2 {
				t.Errorf("another call gave %v after %d keys, want a key of its own", err, keys)
			}
		})
	}
}

func TestUnavailableServersSayWhenToComeAgain(t *testing.T) {
	busy := func(after string) func(w http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			if after != "" {
				w.Header().Set("Retry-After", after)
			}
			refuse(w, 503, api.CodeUnavailable, "starting")
		}
	}
	l := newLossy(1, busy("1"))
	began := time.Now()
	if _, err := onUnix(t, l).PowerOn(t.Context(), "web"); err != nil || time.Since(began) < time.Second {
		t.Errorf("power on gave %v after %v", err, time.Since(began))
	}
	for _, after := range []string{"", "-1", "soon", "0"} {
		l := newLossy(1, busy(after))
		_, err := onUnix(t, l).PowerOn(t.Context(), "web")
		if _, attempts := l.counts(); !errors.Is(err, client.ErrUnavailable) || attempts != 1 {
			t.Errorf("Retry-After %q: %v after %d attempts", after, err, attempts)
		}
	}
}

func TestDeleteIsSentOnce(t *testing.T) {
	l := newLossy(1, func(w http.ResponseWriter) { cut(t, w) })
	_, err := onUnix(t, l).DeleteVM(t.Context(), "web")
	if _, attempts := l.counts(); err == nil || attempts != 1 {
		t.Errorf("delete gave %v after %d attempts", err, attempts)
	}
}

func TestAttemptsEnd(t *testing.T) {
	l := newLossy(1000, func(w http.ResponseWriter) { cut(t, w) })
	_, err := onUnix(t, l).PowerOn(t.Context(), "web")
	if keys, attempts := l.counts(); err == nil || keys != 1 || attempts < 3 {
		t.Errorf("power on gave %v after %d attempts with %d keys", err, attempts, keys)
	}
}

func TestNobodyListens(t *testing.T) {
	c := newClient(t, client.Config{Socket: filepath.Join(t.TempDir(), "none.sock")})
	_, err := c.Host(t.Context())
	if !client.Unreachable(err) {
		t.Errorf("error %v is not of a missing server", err)
	}
}

func TestTimeLimits(t *testing.T) {
	release := make(chan struct{})
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-release })
	path := onUnixPath(t, h)
	t.Cleanup(func() { close(release) })
	c := newClient(t, client.Config{Socket: path, Timeout: 50 * time.Millisecond})
	if _, err := c.Host(t.Context()); err == nil || !strings.Contains(err.Error(), "did not answer in time") {
		t.Errorf("a silent server gave %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := c.Host(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the caller's limit gave %v", err)
	}
}

func TestPagesAreWalkedToTheEnd(t *testing.T) {
	c := onUnix(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Query().Get("cursor") {
		case "":
			answer(w, 200, api.VMList{Items: []api.VM{{Name: "a"}, {Name: "b"}}, NextCursor: "p2"})
		case "p2":
			answer(w, 200, api.VMList{Items: []api.VM{{Name: "c"}}})
		}
	}))
	var names []string
	for vm, err := range c.VMs(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, vm.Name)
	}
	if strings.Join(names, "") != "abc" {
		t.Errorf("walked %q", names)
	}
	for vm := range c.VMs(t.Context()) {
		if vm.Name != "a" {
			t.Errorf("began with %q", vm.Name)
		}
		break
	}
}

func TestListThatDoesNotEnd(t *testing.T) {
	c := onUnix(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer(w, 200, api.TaskList{Items: []api.Task{{ID: "t"}}, NextCursor: "again"})
	}))
	n, last := 0, error(nil)
	for _, err := range c.Tasks(t.Context(), client.TaskFilter{VM: "web", State: api.TaskFailed}) {
		if n++; n > 10 {
			t.Fatal("the walk goes on")
		}
		last = err
	}
	if last == nil || !strings.Contains(last.Error(), "does not end") {
		t.Errorf("the walk ended with %v", last)
	}
}

func TestWaitTask(t *testing.T) {
	var polls atomic.Int32
	c := onUnix(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RequestURI() != "/v1/tasks/t1?wait=30s" {
			t.Errorf("asked for %s", r.URL.RequestURI())
		}
		switch polls.Add(1) {
		case 1:
			answer(w, 200, api.Task{ID: "t1", State: api.TaskRunning})
		case 2:
			cut(t, w) // a restart of the daemon
		default:
			answer(w, 200, api.Task{ID: "t1", State: api.TaskFailed, Error: &api.TaskError{Code: api.CodeMonitorFailed}})
		}
	}))
	task, err := c.WaitTask(t.Context(), "t1")
	if err != nil || task.State != api.TaskFailed || polls.Load() != 3 {
		t.Errorf("wait gave %v, %v after %d polls", task, err, polls.Load())
	}
}
