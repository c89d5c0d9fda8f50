// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Each cost of the module's interface: how tests/kabi/cost calls it, the machine
// that it is measured in, and what it may be against its other side.
var costs = []struct {
	name, against, unit string
	options             []string
	goal, band          float64
}{
	{"exits", "/dev/kvm", "instructions", []string{"--icount"}, 1.01, 0},
	{"create", "/dev/kvm", "instructions", []string{"--icount"}, 1.1, 0},
	{"pause", "signals on /dev/kvm", "ns", []string{"--cpus", "2"}, 3, clockBand},
	{"dump", "few VMs", "instructions", []string{"--icount"}, 1.1, 0},
}

// benchCosts measures what the module's interface costs.
func benchCosts(ctx context.Context, s setup) ([]row, error) {
	program := filepath.Join(s.bin, "cost")
	if _, err := os.Stat(program); err != nil {
		return nil, fmt.Errorf("%w: make build", err)
	}
	var rows []row
	for _, c := range costs {
		var results []struct {
			Name        string
			Ours, Other float64
		}
		fmt.Fprintf(s.progress, "%s: measuring in the lab\n", c.name)
		if err := s.inLab(ctx, &results, c.options, program, c.name); err != nil {
			return rows, err
		}
		if len(results) == 0 {
			return rows, errors.New("no results")
		}
		for _, r := range results {
			rows = append(rows, against(rowNames[c.name]+r.Name, c.against, c.unit, r.Ours, r.Other, c.goal, c.band))
		}
	}
	return rows, nil
}

// rowNames are what stands in front of a row's own name.
var rowNames = map[string]string{"exits": "exit round trip, "}
