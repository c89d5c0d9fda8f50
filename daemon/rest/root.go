// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"context"
	"net/http"
	"reflect"

	"vmctl/daemon/api"
	"vmctl/daemon/auth"
)

// features names what v1 can do; the list only grows.
func features() []string {
	return []string{"vms", "power", "tasks", "events", "console", "sessions", "idempotency"}
}

type rootOutput struct{ Body api.Root }
type whoAmIOutput struct{ Body api.WhoAmI }

func typeOf[T any]() reflect.Type { return reflect.TypeFor[T]() }

func (s *Server) registerRoot() {
	handle(s, s.op("getRoot", http.MethodGet, "/v1", "What this server can do"), s.getRoot)
	handle(s, s.op("whoAmI", http.MethodGet, "/v1/whoami", "Who the caller is, and which roles that gives"), s.whoAmI)
	s.router.Get("/v1/openapi.json", s.getOpenAPI)
}

func (s *Server) getRoot(ctx context.Context, _ *struct{}) (*rootOutput, error) {
	if err := s.Auth.Authorize(ctx, auth.ActionSelf, ""); err != nil {
		return nil, err
	}
	return &rootOutput{Body: api.Root{Features: features()}}, nil
}

func (s *Server) whoAmI(ctx context.Context, _ *struct{}) (*whoAmIOutput, error) {
	if err := s.Auth.Authorize(ctx, auth.ActionSelf, ""); err != nil {
		return nil, err
	}
	c := auth.CallerOf(ctx)
	groups := make([]string, 0, len(c.Groups))
	for _, g := range c.Groups {
		groups = append(groups, string(g))
	}
	return &whoAmIOutput{Body: api.WhoAmI{Principal: string(c.Principal), Groups: groups,
		Roles: s.Auth.Roles(c), Session: c.Session}}, nil
}

func (s *Server) getOpenAPI(w http.ResponseWriter, r *http.Request) {
	if err := s.Auth.Authorize(r.Context(), auth.ActionSelf, ""); err != nil {
		s.refuse(w, r, err)
		return
	}
	doc, err := s.OpenAPI()
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/vnd.oai.openapi+json;version=3.1")
	// The peer is gone when this fails; there is nobody left to tell.
	_, _ = w.Write(doc)
}
