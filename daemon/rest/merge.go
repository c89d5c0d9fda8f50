// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"vmctl/daemon/api"
)

// merge is a spec with a patch of it (RFC 7396). What comes of it has to be what createVM
// takes: a null is a field that is left out.
func (s *Server) merge(ctx context.Context, spec api.VMSpec, patch map[string]any) (api.VMSpec, error) {
	text, err := json.Marshal(spec)
	if err != nil {
		return spec, err
	}
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		return spec, err
	}
	mergePatch(fields, patch)
	reg, found := s.api.OpenAPI().Components.Schemas, new(huma.ValidateResult)
	path := huma.NewPathBuffer(make([]byte, 0, maxProblemText), 0)
	path.Push("body")
	path.Push("spec")
	huma.Validate(reg, reg.Schema(typeOf[api.VMSpec](), true, ""), path, huma.ModeWriteToServer, fields, found)
	if len(found.Errors) > 0 {
		model := &huma.ErrorModel{Status: http.StatusUnprocessableEntity}
		for _, err := range found.Errors {
			model.Add(err)
		}
		return spec, fromHuma(model, requestID(ctx))
	}
	if text, err = json.Marshal(fields); err != nil {
		return spec, err
	}
	spec = api.DefaultVMSpec()
	if err := json.Unmarshal(text, &spec); err != nil {
		return spec, &api.Error{Code: api.CodeInvalidRequest, Field: "body.spec", Detail: "not a spec", Err: err}
	}
	return spec, nil
}

// mergePatch is RFC 7396, section 2.
func mergePatch(target, patch map[string]any) {
	for name, value := range patch {
		inner, object := value.(map[string]any)
		switch {
		case value == nil:
			delete(target, name)
		case object:
			was, ok := target[name].(map[string]any)
			if !ok {
				was = make(map[string]any)
			}
			mergePatch(was, inner)
			target[name] = was
		default:
			target[name] = value
		}
	}
}
