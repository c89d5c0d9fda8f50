// SPDX-License-Identifier: Apache-2.0

// Package kern speaks to the module vmm: ioctls on /dev/vmm and on what it
// hands out, and generic netlink for the inventory and its notices. It returns
// Go types of package vm; error numbers, attributes and retries stay inside.
package kern

import (
	"fmt"

	"github.com/google/uuid"

	"vmctl/abi"
	"vmctl/daemon/api"
	"vmctl/daemon/vm"
)

// Error is a failed command. errors.Is works with the unix.Errno beneath it.
type Error struct {
	Op  string // the command, such as "vm-create"
	VM  uint64 // number of the kernel VM; 0 when there is none yet
	Err error
}

// Error returns command, number and cause.
func (e *Error) Error() string {
	if e.VM == 0 {
		return e.Op + ": " + e.Err.Error()
	}
	return fmt.Sprintf("%s %d: %v", e.Op, e.VM, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// RunOf is what a descriptor says of its VM, in the model's words.
func RunOf(i abi.VMInfo) vm.Run {
	return vm.Run{ID: i.ID, UUID: uuid.UUID(i.UUID).String(), Name: i.NameString(), State: runState(i.State), Paused: holders(i.Paused),
		Reason: stopReason(i.Reason), Claimed: i.Reason.Claimed(), Data: i.ExitData, Monitor: int(i.Monitor)}
}

// stopReason translates a reason. A claim that is not known is told as the
// monitor's failure.
func stopReason(r abi.Reason) api.StopReason {
	switch r {
	case abi.ReasonNone:
		return ""
	case abi.ReasonOperator:
		return api.StopOperator
	case abi.ReasonMonitorGone:
		return api.StopMonitorGone
	case abi.ReasonTampered:
		return api.StopTampered
	case abi.ReasonDestroyed:
		return api.StopDestroyed
	case abi.ReasonPoweroff:
		return api.StopPoweroff
	case abi.ReasonReset:
		return api.StopReset
	case abi.ReasonTripleFault:
		return api.StopTripleFault
	case abi.ReasonPanic:
		return api.StopPanic
	default:
		return api.StopInternalError
	}
}

func runState(s abi.VMState) vm.RunState {
	switch s {
	case abi.VMStateCreated:
		return vm.RunCreated
	case abi.VMStateBound:
		return vm.RunBound
	case abi.VMStateRunning:
		return vm.RunRunning
	default:
		return vm.RunStopped
	}
}

func holders(p abi.Pause) vm.Holders {
	var h vm.Holders
	if p&abi.PauseOperator != 0 {
		h |= vm.HeldByOperator
	}
	if p&abi.PauseSnapshot != 0 {
		h |= vm.HeldBySnapshot
	}
	return h
}
