// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"context"
	"net/http"

	"vmctl/daemon/api"
	"vmctl/daemon/auth"
)

// SessionPath names a login session.
type SessionPath struct {
	ID string `path:"id" minLength:"16" maxLength:"128" pattern:"^[A-Za-z0-9_-]+$" doc:"Id of the login session, chosen by vmhttp"`
}

type putSessionInput struct {
	SessionPath
	Body api.SessionPut
}

type noContent struct{}

func (s *Server) registerSessions() {
	handle(s, s.op("putSession", http.MethodPut, "/v1/sessions/{id}", "Register a login session; service:vmhttp alone", http.StatusNoContent), s.putSession)
	handle(s, s.op("endSession", http.MethodDelete, "/v1/sessions/{id}", "End a login session: its streams and consoles close; service:vmhttp alone", http.StatusNoContent), s.endSession)
}

func (s *Server) putSession(ctx context.Context, in *putSessionInput) (*noContent, error) {
	if err := s.Auth.Authorize(ctx, auth.ActionSession, ""); err != nil {
		return nil, err
	}
	return &noContent{}, s.Sessions.Put(ctx, in.ID, in.Body)
}

func (s *Server) endSession(ctx context.Context, in *SessionPath) (*noContent, error) {
	if err := s.Auth.Authorize(ctx, auth.ActionSession, ""); err != nil {
		return nil, err
	}
	return &noContent{}, s.Sessions.End(ctx, in.ID)
}
