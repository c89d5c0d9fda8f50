// SPDX-License-Identifier: Apache-2.0

package api

import "time"

// Host is the machine that vmctld runs on.
type Host struct {
	Hostname    string     `json:"hostname"`
	Kernel      string     `json:"kernel" doc:"Release of the host's kernel"`
	CPUs        int        `json:"cpus"`
	MemoryBytes int64      `json:"memoryBytes"`
	Module      HostModule `json:"module"`
	Version     string     `json:"version" doc:"Of vmctld"`
	StartedAt   time.Time  `json:"startedAt" doc:"Of vmctld"`
}

// HostModule is vmm.ko as it answers.
type HostModule struct {
	Present  bool   `json:"present" doc:"False: no VM can run, and the rest of this object is zero"`
	ABI      uint32 `json:"abi"`
	Instance string `json:"instance" doc:"Changes with each load of the module"`
	KVM      bool   `json:"kvm" doc:"KVM is there: VMs can run"`
	MaxVMs   uint32 `json:"maxVms"`
	MaxVCPUs uint32 `json:"maxVcpus" doc:"Of one VM"`
}

// Root is the body of GET /v1.
type Root struct {
	Features []string `json:"features" nullable:"false" doc:"Names of what this server can do; the list only grows"`
}

// WhoAmI is the body of GET /v1/whoami.
type WhoAmI struct {
	Principal string   `json:"principal" doc:"Typed: unix:UID, local:NAME, service:NAME"`
	Groups    []string `json:"groups" nullable:"false"`
	Roles     []Role   `json:"roles" nullable:"false" enum:"viewer,operator,admin" doc:"On the whole host"`
	Session   string   `json:"session,omitempty"`
}

// Role is what a principal may do: each holds what the one before may.
type Role string

// The roles.
const (
	RoleViewer   Role = "viewer"   // see
	RoleOperator Role = "operator" // power, consoles
	RoleAdmin    Role = "admin"    // create, delete, everything
)

// SessionPut is the body of PUT /v1/sessions/{session}, which vmhttp alone calls.
type SessionPut struct {
	Principal string    `json:"principal" minLength:"1" maxLength:"256"`
	Groups    []string  `json:"groups" required:"false" nullable:"false" maxItems:"64"`
	ExpiresAt time.Time `json:"expiresAt"`
	Address   string    `json:"address" required:"false" maxLength:"64"`
}
