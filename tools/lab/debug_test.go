// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"strings"
	"testing"
)

// debugTestsValue of machineTestsVariable asks for the tests on the debug kernel,
// whose machines are slow and whose kernel takes long to make.
const debugTestsValue = "debug"

// TestDebugVerdict does wrong what the module of testdata/faults can do. Each
// fault is told of, in a machine of its own.
func TestDebugVerdict(t *testing.T) {
	if os.Getenv(machineTestsVariable) != debugTestsValue {
		t.Skip("boots the debug kernel: set " + machineTestsVariable + "=" + debugTestsValue)
	}
	b := buildLab(t)
	for fault, want := range map[string][]string{
		"use-after-free":  {"complained: KASAN", "use_after_free", "Freed by task"},
		"out-of-bounds":   {"complained: UBSAN", "array-index-out-of-bounds", "kmod/faults.c"},
		"shift":           {"complained: UBSAN", "shift-out-of-bounds"},
		"lock-order":      {"complained: lockdep", "possible circular locking dependency"},
		"sleep-in-atomic": {"complained: BUG", "sleeping function called from invalid context"},
		"count-from-zero": {"complained: refcount", "addition on 0"},
		"leak":            {"left behind: kernel memory leaked", "leak+0x", "[vmm]"},
	} {
		t.Run(fault, func(t *testing.T) {
			code, _, errs := b.run(t, nil, "exec", "--kernel", debugKernel, "--cpus", "1", b.module("faults"), "--",
				"sh", "-c", "echo "+fault+" > /dev/vmm")
			if code != exitKernel {
				t.Errorf("status %d, want %d", code, exitKernel)
			}
			for _, w := range want {
				if !strings.Contains(errs, w) {
					t.Errorf("no %q in: %s", w, errs)
				}
			}
		})
	}
	t.Run("units", func(t *testing.T) {
		code, _, errs := b.run(t, nil, "exec", "--kernel", debugKernel, "--cpus", "1", b.module("units"), "--", "true")
		if code != exitKernel || !strings.Contains(errs, "complained: KUnit") || !strings.Contains(errs, "Expected one == 2") {
			t.Errorf("status %d: %s", code, errs)
		}
	})
	t.Run("nothing", func(t *testing.T) {
		if code, _, errs := b.run(t, nil, "exec", "--kernel", debugKernel, "--cpus", "1", b.module("clean"), "--", "true"); code != 0 {
			t.Errorf("status %d: %s", code, errs)
		}
	})
}
