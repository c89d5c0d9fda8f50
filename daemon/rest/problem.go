// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"vmctl/daemon/api"
)

const problemType = "application/problem+json"

// status is the HTTP status of a code: here and nowhere else. What cannot be
// read at all is 400, what was read and is wrong in one field 422.
func status(c api.Code) int {
	switch c {
	case api.CodeInvalidRequest:
		return http.StatusBadRequest
	case api.CodeUnauthenticated, api.CodeSignatureMissing, api.CodeSignatureInvalid,
		api.CodeSignatureStale, api.CodeSignatureReplayed, api.CodeSessionUnknown:
		return http.StatusUnauthorized
	case api.CodeForbidden:
		return http.StatusForbidden
	case api.CodeNotFound:
		return http.StatusNotFound
	case api.CodeMethodNotAllowed:
		return http.StatusMethodNotAllowed
	case api.CodeConflict, api.CodeExists, api.CodeStateConflict, api.CodeDiskInUse, api.CodeIdempotencyInFlight:
		return http.StatusConflict
	case api.CodePreconditionFailed:
		return http.StatusPreconditionFailed
	case api.CodeTooLarge:
		return http.StatusRequestEntityTooLarge
	case api.CodePreconditionRequired:
		return http.StatusPreconditionRequired
	case api.CodeLimitExceeded:
		return http.StatusTooManyRequests
	case api.CodeMonitorFailed, api.CodeKernelFailed, api.CodeSaveFailed, api.CodeSnapshotFailed, api.CodeMergeFailed, api.CodeInternal:
		return http.StatusInternalServerError
	case api.CodeUnavailable:
		return http.StatusServiceUnavailable
	default: // a field that is understood and wrong
		return http.StatusUnprocessableEntity
	}
}

// problem is api.Problem as huma wants errors.
type problem struct{ *api.Problem }

func (p problem) GetStatus() int               { return p.Status }
func (p problem) ContentType(string) string    { return problemType }
func (p problem) MarshalJSON() ([]byte, error) { return json.Marshal(p.Problem) }
func (p problem) Unwrap() error                { return p.Problem }

// newProblem makes the body for err. What is not an *api.Error is a defect:
// its text goes to the log and not to the caller.
func (s *Server) newProblem(r *http.Request, err error) problem {
	var e *api.Error
	switch {
	case errors.As(err, &e):
	case errors.Is(err, context.Canceled):
		e = &api.Error{Code: api.CodeUnavailable, Detail: "the daemon stops, or the caller left", Err: err}
	default:
		e = &api.Error{Code: api.CodeInternal, Detail: "an internal error; the log has it under the request id", Err: err}
	}
	reqID := requestID(r.Context())
	if status(e.Code) >= http.StatusInternalServerError {
		s.log.LogAttrs(r.Context(), slog.LevelError, "request failed", slog.String("op", r.Method+" "+r.URL.Path),
			slog.String("requestId", reqID), slog.Any("err", err))
	}
	stateOf(r.Context()).code = e.Code
	p := codeProblem(e.Code, e.Detail, reqID)
	if e.Field != "" {
		if e.Code == api.CodeInvalidRequest {
			p.Status, p.Title = http.StatusUnprocessableEntity, http.StatusText(http.StatusUnprocessableEntity)
		}
		p.Errors = []api.ProblemItem{{Location: e.Field, Message: e.Detail}}
	}
	return problem{p}
}

func codeProblem(code api.Code, detail, reqID string) *api.Problem {
	st := status(code)
	return &api.Problem{Type: "about:blank", Title: http.StatusText(st), Status: st, Detail: detail, Code: code, RequestID: reqID}
}

// refuse writes err as a problem, for what never reaches huma.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	p := s.newProblem(r, err)
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	// The peer is gone when this fails; there is nobody left to tell.
	_ = json.NewEncoder(w).Encode(p)
}

// fromHuma turns what huma found wrong with a request into a Problem. Its
// messages name locations; the code follows from the first of them.
func fromHuma(e *huma.ErrorModel, reqID string) problem {
	code, detail := api.CodeInvalidRequest, e.Detail
	switch e.Status {
	case http.StatusRequestEntityTooLarge:
		code = api.CodeTooLarge
	case http.StatusInternalServerError:
		code, detail = api.CodeInternal, "an internal error; the log has it under the request id"
	case http.StatusUnprocessableEntity:
		code = codeOfLocation(e.Errors)
	}
	p := codeProblem(code, detail, reqID)
	p.Status, p.Title = e.Status, http.StatusText(e.Status) // that is sent already
	if code == api.CodeInternal {
		return problem{p}
	}
	for _, item := range e.Errors {
		if item != nil && len(p.Errors) < maxProblemItems {
			p.Errors = append(p.Errors, api.ProblemItem{Location: clip(item.Location), Message: clip(item.Message)})
		}
	}
	if len(p.Errors) > 0 {
		p.Detail = strings.TrimPrefix(p.Errors[0].Location+": ", ": ") + p.Errors[0].Message
	}
	return problem{p}
}

const (
	maxProblemItems = 16
	maxProblemText  = 256 // bytes of one location or message
)

// clip bounds a text that holds what the caller sent.
func clip(s string) string {
	if len(s) <= maxProblemText {
		return s
	}
	return strings.ToValidUTF8(s[:maxProblemText], "") + "..."
}

// codeOfLocation finds the code for what the schema refused.
func codeOfLocation(items []*huma.ErrorDetail) api.Code {
	for _, item := range items {
		if item != nil && (item.Message == "unexpected property" || item.Message == "unknown query parameter") {
			return api.CodeUnknownField
		}
	}
	for _, item := range items {
		if item == nil {
			continue
		}
		switch item.Location {
		case "body.name":
			return api.CodeNameInvalid
		case "body.spec.vcpus":
			return api.CodeVCPUsInvalid
		case "body.spec.memoryBytes", "body.spec.balloonBytes", "body.balloonBytes":
			return api.CodeMemoryInvalid
		case "body.spec.boot.cmdline":
			return api.CodeCmdlineTooLong
		case "body.spec.boot.kernel", "body.spec.boot.initrd":
			return api.CodeBootFileInvalid
		}
		switch {
		case strings.HasPrefix(item.Location, "body.spec.disks"), strings.HasPrefix(item.Location, "body.disk"), item.Location == "body.path":
			return api.CodeDiskInvalid
		case strings.HasPrefix(item.Location, "body.spec.nics"), strings.HasPrefix(item.Location, "body.nic"), item.Location == "body.mac":
			return api.CodeNetworkInvalid
		case strings.HasPrefix(item.Location, "body.seed"):
			return api.CodeSeedInvalid
		}
	}
	return api.CodeInvalidRequest
}

// transform is huma's hook on every body that goes out.
func transform(ctx huma.Context, _ string, v any) (any, error) {
	if e, ok := v.(*huma.ErrorModel); ok {
		p := fromHuma(e, requestID(ctx.Context()))
		stateOf(ctx.Context()).code = p.Code
		return p, nil
	}
	return v, nil
}
