// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"context"
	"sync"

	"vmctl/daemon/api"
)

// Action is something that a caller may be allowed to do.
type Action string

// Every action there is. minimum says the role that each needs.
const (
	ActionView     Action = "view"    // VMs, tasks, events
	ActionPower    Action = "power"   // powerOn, powerOff, reset
	ActionConsole  Action = "console" // console tokens
	ActionCreate   Action = "create"
	ActionChange   Action = "change" // name and spec
	ActionDelete   Action = "delete"
	ActionSeed     Action = "seed"     // what is in a VM's seed: who made it knows
	ActionHost     Action = "host"     // facts of the host, and its events
	ActionSecurity Action = "security" // events of refused callers and of sessions
	ActionSession  Action = "session"  // register and end sessions: vmhttp alone
	ActionSelf     Action = "self"     // whoami, features, the OpenAPI document
)

// AllVMs is the scope of a grant on the whole host.
const AllVMs = "*"

// Grant gives a role on a scope: AllVMs or "vm:" and the uuid.
type Grant struct {
	Principal Principal
	Scope     string
	Role      api.Role
}

// VMScope returns the scope of one VM.
func VMScope(id string) string { return "vm:" + id }

// minimum is the role that an action needs. An action that is not here is
// denied to all.
var minimum = map[Action]api.Role{
	ActionView:     api.RoleViewer,
	ActionHost:     api.RoleViewer,
	ActionPower:    api.RoleOperator,
	ActionConsole:  api.RoleOperator,
	ActionCreate:   api.RoleAdmin,
	ActionChange:   api.RoleAdmin,
	ActionDelete:   api.RoleAdmin,
	ActionSeed:     api.RoleAdmin,
	ActionSecurity: api.RoleAdmin,
}

func rank(r api.Role) int {
	switch r {
	case api.RoleViewer:
		return 1
	case api.RoleOperator:
		return 2
	case api.RoleAdmin:
		return 3
	}
	return 0
}

// Authorizer decides. It is safe for concurrent use.
type Authorizer struct {
	mu     sync.RWMutex
	grants map[Principal]map[string]api.Role // [mu] principal -> scope -> role

	denied func(ctx context.Context, c *Caller, action Action, vm string, code api.Code)
}

// NewAuthorizer returns an Authorizer with the given grants. denied is called
// for each refusal and must write it to the audit log; c is nil when nobody
// was identified.
func NewAuthorizer(grants []Grant, denied func(ctx context.Context, c *Caller, action Action, vm string, code api.Code)) *Authorizer {
	a := &Authorizer{denied: denied}
	a.SetGrants(grants)
	return a
}

// SetGrants replaces all grants at once.
func (a *Authorizer) SetGrants(grants []Grant) {
	table := make(map[Principal]map[string]api.Role, len(grants))
	for _, g := range grants {
		if table[g.Principal] == nil {
			table[g.Principal] = make(map[string]api.Role)
		}
		if rank(g.Role) > rank(table[g.Principal][g.Scope]) {
			table[g.Principal][g.Scope] = g.Role
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.grants = table
}

// Authorize decides whether the caller of ctx may do action on a VM, or on
// the host when vm is empty. The error is an *api.Error: CodeUnauthenticated,
// CodeForbidden, or CodeNotFound for a VM that the caller may not see.
func (a *Authorizer) Authorize(ctx context.Context, action Action, vm string) error {
	c := CallerOf(ctx)
	err := a.decide(c, action, vm)
	if err != nil {
		a.denied(ctx, c, action, vm, err.Code)
		return err
	}
	return nil
}

func (a *Authorizer) decide(c *Caller, action Action, vm string) *api.Error {
	if c == nil {
		return &api.Error{Code: api.CodeUnauthenticated, Detail: "nobody is known to ask"}
	}
	if a.Can(c, action, vm) {
		return nil
	}
	if vm != "" && !a.Can(c, ActionView, vm) {
		return &api.Error{Code: api.CodeNotFound, Detail: "no such VM"}
	}
	return &api.Error{Code: api.CodeForbidden, Detail: string(c.Principal) + " may not " + string(action) + " here"}
}

// Can is Authorize without a trace, for filtering what a caller sees.
func (a *Authorizer) Can(c *Caller, action Action, vm string) bool {
	switch {
	case c == nil:
		return false
	case action == ActionSession:
		return c.Principal == ServiceFront
	case c.Principal == ServiceFront:
		return action == ActionSelf
	case action == ActionSelf:
		return true
	}
	need, ok := minimum[action]
	return ok && rank(a.Role(c, vm)) >= rank(need)
}

// Sees reports whether c may see anything at all: without any grant a list is
// refused instead of empty.
func (a *Authorizer) Sees(c *Caller) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, name := range c.Names() {
		if len(a.grants[name]) > 0 {
			return true
		}
	}
	return false
}

// AuthorizeList decides whether the caller of ctx may list VMs, tasks or
// events; what is listed is then filtered with Can.
func (a *Authorizer) AuthorizeList(ctx context.Context) error {
	c := CallerOf(ctx)
	if c != nil && c.Principal != ServiceFront && a.Sees(c) {
		return nil
	}
	return a.Authorize(ctx, ActionView, "")
}

// Role returns the highest role of c on a VM, or on the host when vm is empty;
// "" is none.
func (a *Authorizer) Role(c *Caller, vm string) api.Role {
	a.mu.RLock()
	defer a.mu.RUnlock()
	var best api.Role
	for _, name := range c.Names() {
		scopes := a.grants[name]
		for _, r := range []api.Role{scopes[AllVMs], vmRole(scopes, vm)} {
			if rank(r) > rank(best) {
				best = r
			}
		}
	}
	return best
}

func vmRole(scopes map[string]api.Role, vm string) api.Role {
	if vm == "" {
		return ""
	}
	return scopes[VMScope(vm)]
}

// Roles returns the roles of c on the host, lowest first.
func (a *Authorizer) Roles(c *Caller) []api.Role {
	best := rank(a.Role(c, ""))
	return []api.Role{api.RoleViewer, api.RoleOperator, api.RoleAdmin}[:best]
}

// Valid reports whether a grant can ever match anybody.
func (g Grant) Valid() bool {
	for _, t := range []string{typeUnix, typeUnixGroup, typeLocal, typeLocalGroup, typeOIDC, typeOIDCGroup} {
		if g.Principal.typed(t) {
			return rank(g.Role) > 0 && g.Scope != ""
		}
	}
	return false
}
