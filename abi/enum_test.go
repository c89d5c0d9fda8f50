// SPDX-License-Identifier: Apache-2.0

package abi_test

import (
	"strings"
	"testing"

	"vmctl/abi"
)

func TestEnumNames(t *testing.T) {
	tests := []struct {
		value interface{ String() string }
		want  string
	}{
		{abi.VMStateRunning, "running"},
		{abi.VMState(9), "unknown(9)"},
		{abi.ReasonMonitorGone, "monitorGone"},
		{abi.ReasonTripleFault, "tripleFault"},
		{abi.EventStopped, "stopped"},
		{abi.RightControl | abi.RightObserve, "control|observe"},
		{abi.Right(0), "none"},
		{abi.RightRun | 0x30, "run|0x30"},
		{abi.PauseAll, "operator|snapshot"},
	}
	for _, tt := range tests {
		if got := tt.value.String(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

// TestEnumComplete finds constants of vmm.h that have no name yet.
func TestEnumComplete(t *testing.T) {
	counts := map[string]int{}
	for _, c := range readGolden(t).consts {
		for _, prefix := range []string{
			"VMM_VM_STATE_", "VMM_VCPU_STATE_", "VMM_REASON_", "VMM_EVENT_", "VMM_BACKEND_STATE_", "VMM_ROLE_", "VMM_LIMIT_",
		} {
			if strings.HasPrefix(c[0], prefix) {
				counts[prefix]++
			}
		}
	}
	named := func(s func(uint32) string) (n int) {
		for i := range uint32(256) {
			if !strings.HasPrefix(s(i), "unknown") {
				n++
			}
		}
		return n
	}
	for prefix, got := range map[string]int{
		"VMM_VM_STATE_": named(func(i uint32) string { return abi.VMState(i).String() }),
		"VMM_REASON_":   named(func(i uint32) string { return abi.Reason(i).String() }),
		"VMM_EVENT_":    named(func(i uint32) string { return abi.Event(i).String() }),

		"VMM_VCPU_STATE_":    named(func(i uint32) string { return abi.VCPUState(i).String() }),
		"VMM_BACKEND_STATE_": named(func(i uint32) string { return abi.BackendState(i).String() }),
		"VMM_ROLE_":          named(func(i uint32) string { return abi.Role(i).String() }),
		"VMM_LIMIT_":         named(func(i uint32) string { return abi.Limit(i).String() }),
	} {
		if got != counts[prefix] {
			t.Errorf("%s*: %d have a name, vmm.h has %d", prefix, got, counts[prefix])
		}
	}
}

func TestReasonClaimed(t *testing.T) {
	for r, want := range map[abi.Reason]bool{
		abi.ReasonOperator: false, abi.ReasonDestroyed: false, abi.ReasonPoweroff: true, abi.ReasonInternalError: true,
	} {
		if r.Claimed() != want {
			t.Errorf("%v: claimed %v, want %v", r, r.Claimed(), want)
		}
	}
}
