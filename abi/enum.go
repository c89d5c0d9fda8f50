// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"strconv"
	"strings"
)

// VMState is the state of a VM; see the drawing in vmm.h.
type VMState uint32

// Reason says why a VM changed last. It is the exit status of a monitor too.
type Reason uint32

// Event says what a notification of the netlink family is about.
type Event uint32

// Right is a set of rights of a VM descriptor.
type Right uint32

// Pause is the set of holders that keep the gate of a VM shut.
type Pause uint32

// VCPUState says where the thread of a vCPU is.
type VCPUState uint32

// BackendKind says for which kind of device a backend is.
type BackendKind uint32

// BackendState says whether a backend can be had, or waits for its files.
type BackendState uint32

// Role says what a file of a backend is for.
type Role uint32

// Limit names one of the limits of a VM or of the host.
type Limit uint32

var stateNames = map[VMState]string{
	VMStateCreated: "created", VMStateBound: "bound", VMStateRunning: "running", VMStateStopped: "stopped",
}

var reasonNames = map[Reason]string{
	ReasonNone: "none", ReasonOperator: "operator", ReasonMonitorGone: "monitorGone", ReasonTampered: "tampered",
	ReasonDestroyed: "destroyed", ReasonPoweroff: "poweroff", ReasonReset: "reset", ReasonTripleFault: "tripleFault",
	ReasonPanic: "panic", ReasonInternalError: "internalError",
}

var eventNames = map[Event]string{
	EventCreated: "created", EventConfigured: "configured", EventBound: "bound", EventRunning: "running",
	EventPaused: "paused", EventResumed: "resumed", EventAttached: "attached", EventDetached: "detached",
	EventLimit: "limit", EventReset: "reset", EventStopped: "stopped", EventDestroyed: "destroyed",
}

var vcpuStateNames = map[VCPUState]string{
	VCPUStateFresh: "fresh", VCPUStateRunning: "running", VCPUStateOutside: "outside", VCPUStateParked: "parked",
}

var backendKindNames = map[BackendKind]string{BackendDisk: "disk", BackendNIC: "nic"}

var backendStateNames = map[BackendState]string{BackendStateAttached: "attached", BackendStateDraining: "draining"}

var roleNames = map[Role]string{RoleData: "data", RoleBase: "base", RoleTap: "tap", RoleVhost: "vhost"}

var limitNames = map[Limit]string{
	LimitVCPUs: "vcpus", LimitMemSlots: "memslots", LimitDoorbells: "doorbells", LimitBackends: "backends",
	LimitMemory: "memory", LimitHostVCPUs: "hostVcpus", LimitHostMemory: "hostMemory",
}

func enumName[E ~uint32](names map[E]string, e E) string {
	if n, ok := names[e]; ok {
		return n
	}
	return "unknown(" + strconv.FormatUint(uint64(e), 10) + ")"
}

// String returns the state as it is written everywhere, such as "running".
func (s VMState) String() string { return enumName(stateNames, s) }

// String returns the reason as it is written everywhere, such as "monitorGone".
func (r Reason) String() string { return enumName(reasonNames, r) }

// String returns the event in one word, such as "stopped".
func (e Event) String() string { return enumName(eventNames, e) }

// String returns the state in one word, such as "parked".
func (s VCPUState) String() string { return enumName(vcpuStateNames, s) }

// String returns the kind in one word, such as "disk".
func (k BackendKind) String() string { return enumName(backendKindNames, k) }

// String returns the state in one word, such as "draining".
func (s BackendState) String() string { return enumName(backendStateNames, s) }

// String returns the role in one word, such as "data".
func (r Role) String() string { return enumName(roleNames, r) }

// String returns the limit in one word, such as "vcpus".
func (l Limit) String() string { return enumName(limitNames, l) }

// Claimed reports whether the reason is a claim of the monitor, which the kernel
// passes on and does not vouch for.
func (r Reason) Claimed() bool { return r >= ReasonPoweroff }

// String returns the rights as a list such as "control|observe", or "none".
func (r Right) String() string {
	return setName(uint32(r), []string{"control", "run", "observe", "delegate"})
}

// String returns the holders as a list such as "operator|snapshot", or "none".
func (p Pause) String() string { return setName(uint32(p), []string{"operator", "snapshot"}) }

// setName joins the names of the bits of set; bits without a name become one
// hexadecimal number at the end.
func setName(set uint32, names []string) string {
	if set == 0 {
		return "none"
	}
	var parts []string
	for i, n := range names {
		if set&(1<<i) != 0 {
			parts = append(parts, n)
		}
	}
	if rest := set &^ (1<<len(names) - 1); rest != 0 {
		parts = append(parts, "0x"+strconv.FormatUint(uint64(rest), 16))
	}
	return strings.Join(parts, "|")
}
