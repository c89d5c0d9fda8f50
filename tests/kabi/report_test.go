// SPDX-License-Identifier: Apache-2.0

//go:build lab

package kabi

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// TestReport gives every reason that is the monitor's to claim.
func TestReport(t *testing.T) {
	data := [4]uint64{1, 2, 3, ^uint64(0)}
	for _, reason := range []abi.Reason{
		abi.ReasonPoweroff, abi.ReasonTripleFault, abi.ReasonPanic, abi.ReasonInternalError,
	} {
		m := newMachine(t, running)
		ok(t, m.vm.Report(reason, data))
		m.wantState(abi.VMStateStopped, reason)
		if got := m.info().ExitData; got != data {
			t.Errorf("%v: data %x, want %x", reason, got, data)
		}
		wantErr(t, "RUN after the report", m.cpu.Run(), unix.ESHUTDOWN)
		wantErr(t, "VM_STOP after the report", m.vm.Stop(), unix.ESHUTDOWN)
		m.wantState(abi.VMStateStopped, reason)
	}
}

// TestReportReset shows that a reset ends nothing.
func TestReportReset(t *testing.T) {
	m := newMachine(t, withMem)
	m.load(outLoop(outPort))
	m.wantIO(outPort, 1)
	ok(t, m.vm.Report(abi.ReasonReset, [4]uint64{7}))
	if i := m.info(); i.State != abi.VMStateRunning {
		t.Errorf("state %v after a reset", i.State)
	}
	m.wantIO(outPort, 1)
	ok(t, m.vm.Stop())
	m.wantState(abi.VMStateStopped, abi.ReasonOperator)
}

// TestReportRefuses shows that the kernel's own reasons cannot be claimed.
func TestReportRefuses(t *testing.T) {
	m := newMachine(t, running)
	for _, reason := range []abi.Reason{
		abi.ReasonNone, abi.ReasonOperator, abi.ReasonMonitorGone, abi.ReasonTampered, abi.ReasonDestroyed,
		5, 15, abi.ReasonInternalError + 1, ^abi.Reason(0),
	} {
		wantErr(t, fmt.Sprintf("reason %v", reason), m.vm.Report(reason, [4]uint64{}), unix.EINVAL)
	}
	m.wantState(abi.VMStateRunning, abi.ReasonNone)
}

// TestReportWhileRunning ends the guest of another thread.
func TestReportWhileRunning(t *testing.T) {
	m := newMachine(t, withMem)
	m.load(count)
	done := runner(m.cpu)
	m.whenCounting()
	ok(t, m.vm.Report(abi.ReasonPanic, [4]uint64{}))
	wantEnd(t, "RUN of a VM that was reported", done, unix.ESHUTDOWN)
	m.wantState(abi.VMStateStopped, abi.ReasonPanic)
}
