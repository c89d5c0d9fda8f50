// SPDX-License-Identifier: Apache-2.0

package auth_test

import (
	"context"
	"errors"
	"testing"

	"vmctl/daemon/api"
	"vmctl/daemon/auth"
)

const (
	vmA = "aaaaaaaa-0000-4000-8000-000000000000"
	vmB = "bbbbbbbb-0000-4000-8000-000000000000"
)

// TestAuthorize is the whole table of who may do what.
func TestAuthorize(t *testing.T) {
	grants := []auth.Grant{
		{Principal: "unix:0", Scope: auth.AllVMs, Role: api.RoleAdmin},
		{Principal: "unix-group:ops", Scope: auth.AllVMs, Role: api.RoleOperator},
		{Principal: "local:view", Scope: auth.AllVMs, Role: api.RoleViewer},
		{Principal: "local:one", Scope: auth.VMScope(vmA), Role: api.RoleOperator},
		{Principal: "local:mixed", Scope: auth.AllVMs, Role: api.RoleViewer},
		{Principal: "local:mixed", Scope: auth.VMScope(vmA), Role: api.RoleAdmin},
	}
	callers := map[string]*auth.Caller{
		"root":    {Principal: "unix:0"},
		"ops":     {Principal: "unix:7", Groups: []auth.Principal{"unix-group:users", "unix-group:ops"}},
		"view":    {Principal: "local:view"},
		"one":     {Principal: "local:one"},
		"mixed":   {Principal: "local:mixed"},
		"nobody":  {Principal: "local:nobody"},
		"alike":   {Principal: "local:0", Groups: []auth.Principal{"local-group:ops"}}, // types never match across
		"named":   {Principal: "local:unix-group:ops"},
		"service": {Principal: auth.ServiceFront},
		"":        nil,
	}
	const ok, no, hid, who = "", api.CodeForbidden, api.CodeNotFound, api.CodeUnauthenticated
	for _, c := range []struct {
		caller string
		vm     string
		want   map[auth.Action]api.Code
	}{
		{"root", vmA, map[auth.Action]api.Code{auth.ActionView: ok, auth.ActionPower: ok, auth.ActionConsole: ok, auth.ActionDelete: ok, auth.ActionChange: ok}},
		{"root", "", map[auth.Action]api.Code{auth.ActionCreate: ok, auth.ActionHost: ok, auth.ActionSecurity: ok, auth.ActionSelf: ok, auth.ActionSession: no, "unheard": no}},
		{"ops", vmB, map[auth.Action]api.Code{auth.ActionView: ok, auth.ActionPower: ok, auth.ActionConsole: ok, auth.ActionDelete: no, auth.ActionChange: no}},
		{"ops", "", map[auth.Action]api.Code{auth.ActionCreate: no, auth.ActionHost: ok, auth.ActionSecurity: no}},
		{"view", vmA, map[auth.Action]api.Code{auth.ActionView: ok, auth.ActionPower: no, auth.ActionConsole: no, auth.ActionDelete: no, auth.ActionChange: no}},
		{"one", vmA, map[auth.Action]api.Code{auth.ActionView: ok, auth.ActionPower: ok, auth.ActionDelete: no, auth.ActionChange: no}},
		{"one", vmB, map[auth.Action]api.Code{auth.ActionView: hid, auth.ActionPower: hid, auth.ActionDelete: hid}},
		{"one", "", map[auth.Action]api.Code{auth.ActionCreate: no, auth.ActionHost: no}},
		{"mixed", vmA, map[auth.Action]api.Code{auth.ActionDelete: ok, auth.ActionChange: ok}},
		{"mixed", vmB, map[auth.Action]api.Code{auth.ActionView: ok, auth.ActionDelete: no, auth.ActionChange: no}},
		{"nobody", vmA, map[auth.Action]api.Code{auth.ActionView: hid, auth.ActionPower: hid, auth.ActionConsole: hid}},
		{"nobody", "", map[auth.Action]api.Code{auth.ActionSelf: ok, auth.ActionHost: no, auth.ActionCreate: no}},
		{"alike", vmA, map[auth.Action]api.Code{auth.ActionView: hid}},
		{"named", vmA, map[auth.Action]api.Code{auth.ActionView: hid}},
		{"service", "", map[auth.Action]api.Code{auth.ActionSession: ok, auth.ActionSelf: ok, auth.ActionHost: no, auth.ActionCreate: no}},
		{"service", vmA, map[auth.Action]api.Code{auth.ActionView: hid}},
		{"", vmA, map[auth.Action]api.Code{auth.ActionView: who}},
		{"", "", map[auth.Action]api.Code{auth.ActionSelf: who, auth.ActionSession: who}},
	} {
		for action, want := range c.want {
			denied := 0
			a := auth.NewAuthorizer(grants, func(context.Context, *auth.Caller, auth.Action, string, api.Code) { denied++ })
			ctx := context.Background()
			if caller := callers[c.caller]; caller != nil {
				ctx = auth.WithCaller(ctx, caller)
			}
			err := a.Authorize(ctx, action, c.vm)
			var e *api.Error
			switch {
			case want == ok && (err != nil || denied != 0):
				t.Errorf("%q %s on %q: %v, %d denials", c.caller, action, c.vm, err, denied)
			case want != ok && (!errors.As(err, &e) || e.Code != want || denied != 1):
				t.Errorf("%q %s on %q: %v, want %s, %d denials", c.caller, action, c.vm, err, want, denied)
			}
		}
	}
}

func TestGrantValid(t *testing.T) {
	for principal, want := range map[auth.Principal]bool{
		"unix:0": true, "unix-group:ops": true, "local:admin": true, "oidc:https://id#sub": true,
		"admin": false, "local:": false, "local:a b": false, "local:a\nb": false, "service:vmhttp": false, "": false,
	} {
		g := auth.Grant{Principal: principal, Scope: auth.AllVMs, Role: api.RoleViewer}
		if g.Valid() != want {
			t.Errorf("%q: %v", principal, !want)
		}
	}
	if (auth.Grant{Principal: "unix:0", Scope: auth.AllVMs, Role: "root"}).Valid() {
		t.Error("a role that does not exist")
	}
}
