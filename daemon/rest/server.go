// SPDX-License-Identifier: Apache-2.0

// Package rest is vmctld's HTTP interface: it reads requests, asks who calls
// and whether they may, hands the work to the model, and writes answers. HTTP
// appears here and nowhere else in the daemon. One file is one noun.
//
// To add a method: types in package api, an operation in the file of its noun
// with a call of authorize as the first thing that its handler does, and the
// regenerated openapi.json.
package rest

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"

	"vmctl/daemon/api"
	"vmctl/daemon/auth"
)

// Limits of what a request may be.
const (
	maxBody   = 1 << 20 // bytes
	maxDrain  = 8 << 20 // bytes of a larger body that are read and thrown away
	maxHeader = 64 << 10
)

// Machines is the inventory of VMs and what can be asked of them. Errors that
// a caller may see are *api.Error.
type Machines interface {
	// List returns all VMs by name, and the number of the last event in them.
	List() ([]api.VM, int64)
	// Find returns a VM by name or uuid.
	Find(ident string) (api.VM, error)
	Create(ctx context.Context, req api.VMCreate) (api.VM, error)
	// Seed returns the seed of a VM; CodeNotFound when it has none.
	Seed(ctx context.Context, id string) (api.Seed, error)
	// Ask queues a power verb or a deletion. generation is 0 or what it must be.
	Ask(ctx context.Context, id string, verb api.Verb, generation int64) (api.Task, error)
	// Change gives a VM another name and spec, if it has that generation.
	Change(ctx context.Context, id string, generation int64, name string, spec api.VMSpec) (api.VM, error)
	// SetBalloon is Change of nothing but the balloon, and Balloon says what became of it.
	SetBalloon(ctx context.Context, id string, bytes int64) (api.VM, error)
	Balloon(id string) (api.Balloon, error)
	// AskDisk queues a verb for one of its disks.
	AskDisk(ctx context.Context, id string, verb api.Verb, disk int) (api.Task, error)
	// AskDevice queues a verb for a device that comes or goes.
	AskDevice(ctx context.Context, id string, verb api.Verb, d api.Device) (api.Task, error)
	ConsoleToken(ctx context.Context, id string, mode api.ConsoleMode) (api.ConsoleToken, error)
}

// TaskFilter selects tasks; zero fields select all.
type TaskFilter struct {
	VM     string // uuid
	State  api.TaskState
	Before int64 // position in the list: only older ones
	Limit  int
}

// Tasks is the record of tasks.
type Tasks interface {
	Get(ctx context.Context, id string) (api.Task, error)
	// Wait returns the task when it has ended, or as it is after d.
	Wait(ctx context.Context, id string, d time.Duration) (api.Task, error)
	// List returns tasks newest first with the position of each, and the number
	// of the last event in them.
	List(ctx context.Context, f TaskFilter) (tasks []api.Task, at []int64, seq int64, err error)
}

// Host tells about this machine.
type Host interface {
	Describe(ctx context.Context) (api.Host, error)
}

// Sessions is the register of login sessions.
type Sessions interface {
	Put(ctx context.Context, id string, s api.SessionPut) error
	End(ctx context.Context, id string) error
	// Done is closed when the session has ended.
	Done(id string) <-chan struct{}
}

// Config is what a Server is made of.
type Config struct {
	Machines Machines
	Tasks    Tasks
	Journal  Journal
	Host     Host
	Sessions Sessions
	Auth     *auth.Authorizer
	Replay   Replay
	Audit    Audit
	Log      *slog.Logger
	Now      func() time.Time
	// Observe is called after each request, for metrics.
	Observe func(method, route string, status int, took time.Duration)
}

// Server answers requests. It is safe for concurrent use.
type Server struct {
	Config
	log      *slog.Logger
	router   chi.Router
	api      huma.API
	busy     inFlight
	streams  atomic.Int64
	stopping context.Context // ends with the daemon
	stop     context.CancelFunc
	document func() ([]byte, error)
}

// New returns a Server. The routes are fixed here; who calls is decided by the
// handler of each socket.
func New(c Config) *Server {
	s := &Server{Config: c, log: c.Log, router: chi.NewRouter()}
	s.stopping, s.stop = context.WithCancel(context.Background())
	strictCase()
	s.router.NotFound(func(w http.ResponseWriter, r *http.Request) {
		s.refuse(w, r, &api.Error{Code: api.CodeNotFound, Detail: "no such path"})
	})
	s.router.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) {
		s.refuse(w, r, &api.Error{Code: api.CodeMethodNotAllowed, Detail: "the path does not take " + clip(r.Method)})
	})
	s.api = humachi.New(s.router, s.humaConfig())
	s.registerRoot()
	s.registerVMs()
	s.registerTasks()
	s.registerEvents()
	s.registerHost()
	s.registerSessions()
	s.document = sync.OnceValues(func() ([]byte, error) { return openAPI(s.api.OpenAPI()) })
	return s
}

func (s *Server) humaConfig() huma.Config {
	c := huma.DefaultConfig("vmctl", "1")
	c.Info.Description = "Virtual machines of one host. Every write that takes time answers 202 with a task; " +
		"every error is a problem document with a stable code; POST takes an Idempotency-Key."
	c.OpenAPIPath, c.DocsPath, c.SchemasPath = "", "", ""
	c.CreateHooks = nil // they add $schema to every body
	c.RejectUnknownQueryParameters = true
	c.Transformers = []huma.Transformer{transform}
	c.Formats = map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat}
	return c
}

// op fills in what all operations share.
func (s *Server) op(id, method, path, summary string, codes ...int) huma.Operation {
	reg := s.api.OpenAPI().Components.Schemas
	schema := reg.Schema(typeOf[api.Problem](), true, "")
	op := huma.Operation{OperationID: id, Method: method, Path: path, Summary: summary, MaxBodyBytes: maxBody,
		Responses: map[string]*huma.Response{
			"default": {Description: "Error", Content: map[string]*huma.MediaType{problemType: {Schema: schema}}},
		}}
	if len(codes) > 0 {
		op.DefaultStatus = codes[0]
	}
	return op
}

// OpenAPI returns the OpenAPI 3.1 document of all routes, made from the code.
func (s *Server) OpenAPI() ([]byte, error) { return s.document() }

// handle registers a handler of the model's errors with huma.
func handle[I, O any](s *Server, op huma.Operation, fn func(ctx context.Context, in *I) (*O, error)) {
	huma.Register(s.api, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := fn(ctx, in)
		var already problem
		if err == nil || errors.As(err, &already) {
			return out, err
		}
		return nil, s.newProblem(requestOf(ctx), err)
	})
}

var strictOnce sync.Once

// strictCase makes "VCPUS" an unknown field. The library has a variable for it
// and no option; it is set once, before the first request is read.
func strictCase() { strictOnce.Do(func() { huma.ValidateStrictCasing = true }) }
