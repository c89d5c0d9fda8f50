// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// KVM's counters of a guest: all of its exits, and those to its monitor for memory
// that is not there, which is where a device has its registers and bells. Those for
// ports are the serial line's.
const (
	allExits    = "exits"
	memoryExits = "mmio_exits"
)

// kvmGuests is where KVM shows its guests, each in a folder.
const kvmGuests = "/sys/kernel/debug/kvm"

// kvmCount is the sum of a counter over all guests. There is one, and VMs of the
// module's own that stand still.
func kvmCount(dir, name string) (sum uint64, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "*-*", name))
	if err != nil {
		return 0, err
	}
	if len(files) == 0 {
		return 0, fmt.Errorf("KVM shows no %s of a guest", name)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return 0, err
		}
		n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", f, err)
		}
		sum += n
	}
	return sum, nil
}
