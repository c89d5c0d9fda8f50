// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"context"
	"net/http"

	"vmctl/daemon/api"
	"vmctl/daemon/auth"
)

type hostOutput struct{ Body api.Host }

func (s *Server) registerHost() {
	handle(s, s.op("getHost", http.MethodGet, "/v1/host", "The machine that vmctld runs on"), s.getHost)
}

func (s *Server) getHost(ctx context.Context, _ *struct{}) (*hostOutput, error) {
	if err := s.Auth.Authorize(ctx, auth.ActionHost, ""); err != nil {
		return nil, err
	}
	h, err := s.Host.Describe(ctx)
	if err != nil {
		return nil, err
	}
	return &hostOutput{Body: h}, nil
}
