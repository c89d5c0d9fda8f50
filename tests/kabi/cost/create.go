// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"fmt"
	"time"
)

const createRounds = 40

// create times a VM from nothing to its first exit.
func create() ([]result, error) {
	var a, b []float64
	for i := range createRounds + 1 {
		x, err := timeCreate(newOurs)
		if err != nil {
			return nil, fmt.Errorf("/dev/vmm: %w", err)
		}
		y, err := timeCreate(newRaw)
		if err != nil {
			return nil, fmt.Errorf("/dev/kvm: %w", err)
		}
		if i > 0 {
			a, b = append(a, x), append(b, y)
		}
	}
	return []result{{"create to first run", median(a), median(b)}}, nil
}

func timeCreate(create func(int, []byte) (*guest, error)) (float64, error) {
	start := time.Now()
	g, err := create(1, portWrites)
	if err != nil {
		return 0, err
	}
	if err := g.run(0); err != nil {
		return 0, err
	}
	took := float64(time.Since(start).Nanoseconds())
	return took, g.close()
}
