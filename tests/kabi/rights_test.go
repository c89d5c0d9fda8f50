// SPDX-License-Identifier: Apache-2.0

//go:build lab

package kabi

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

var singleRights = []abi.Right{abi.RightControl, abi.RightRun, abi.RightObserve, abi.RightDelegate}

// newMachineWithRights brings a machine to a stage and returns descriptors of its
// VM, each with one right, that were made before it ended.
func newMachineWithRights(t *testing.T, at stage) (*machine, map[abi.Right]*abi.VM) {
	t.Helper()
	m := newMachine(t, min(at, running))
	fds := map[abi.Right]*abi.VM{}
	for _, r := range singleRights {
		vm, err := m.vm.Delegate(r)
		ok(t, err)
		t.Cleanup(func() { closeAll(t, vm) })
		fds[r] = vm
	}
	switch at {
	case stopped:
		ok(t, m.vm.Stop())
	case destroyed:
		ok(t, m.vm.Destroy())
	}
	return m, fds
}

// wantOfRight is what vmm.h says about a command of a VM descriptor with one
// right, in a state; nil when it is carried out.
func wantOfRight(c command, right abi.Right, at stage) error {
	if c.right != 0 && c.right != right {
		return unix.EACCES
	}
	return stateError(c, at)
}

// TestEveryRightInEveryState gives every command of a VM descriptor with every
// right alone, in every state. Those that are refused leave everything as it is,
// so one machine serves them all.
func TestEveryRightInEveryState(t *testing.T) {
	for at := created; at <= destroyed; at++ {
		t.Run(at.String(), func(t *testing.T) {
			m, fds := newMachineWithRights(t, at)
			before := m.info()
			for _, c := range commands() {
				if c.on != onVM {
					continue
				}
				for _, right := range singleRights {
					if want := wantOfRight(c, right, at); want != nil {
						_, _, err := newArgument(t).ioctl(fds[right].FD(), c.req, c.arg(m))
						wantErr(t, fmt.Sprintf("%s with the right %v", c.name, right), err, want)
					}
				}
			}
			if after := m.info(); after != before {
				t.Errorf("refused commands changed the VM from %+v to %+v", before, after)
			}
		})
	}
}

// TestRightSuffices gives every command with just the right that it needs, in
// every state that allows it.
func TestRightSuffices(t *testing.T) {
	for _, c := range commands() {
		// TestDelegate has the rights that can be delegated.
		if c.on != onVM || c.req == abi.IOCVMDelegate {
			continue
		}
		for at := created; at <= destroyed; at++ {
			// KVM is not asked about a VM that is gone.
			if !slices.Contains(c.also, at) || at == destroyed && c.name == "GET_INFO kvm extension" {
				continue
			}
			right := c.right
			if right == 0 {
				right = abi.RightControl // any will do
			}
			m, fds := newMachineWithRights(t, at)
			if c.first != nil {
				c.first(m)
			}
			got, _, err := newArgument(t).ioctl(fds[right].FD(), c.req, c.arg(m))
			what := fmt.Sprintf("%s with the right %v, %v", c.name, right, at)
			if at == c.at {
				wantErr(t, what, err, nil)
			}
			// Elsewhere it may lack something that it works on, but not this.
			for _, not := range []error{unix.EACCES, unix.ESHUTDOWN, unix.EIO, unix.ENOTTY} {
				if errors.Is(err, not) {
					t.Errorf("%s: %v", what, err)
				}
			}
			if err == nil {
				m.closeMade(c, got)
			}
		}
	}
}
