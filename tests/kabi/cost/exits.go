// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"fmt"
	"time"
)

const (
	exitCount = 20000
	// Short rounds, so that most see no tick of the kernel's clock.
	exitRounds = 80
)

// exits times the same guest on both sides, by the same system call.
func exits() ([]result, error) {
	each := exitCount / exitRounds
	port, err := compareExits(portWrites, each)
	if err != nil {
		return nil, err
	}
	port.Name = "port write"
	// Exits that KVM handles itself: one RUN, many exits.
	cpuid, err := compareExits(cpuidLoop, max(1, each/cpuids))
	if err != nil {
		return nil, err
	}
	cpuid.Name, cpuid.Ours, cpuid.Other = "cpuid", cpuid.Ours/cpuids, cpuid.Other/cpuids
	return []result{port, cpuid}, nil
}

// compareExits times both guests in turns, so that what disturbs one disturbs
// both.
func compareExits(code []byte, each int) (result, error) {
	ours, err := newOurs(1, code)
	if err != nil {
		return result{}, fmt.Errorf("/dev/vmm: %w", err)
	}
	other, err := newRaw(1, code)
	if err != nil {
		return result{}, fmt.Errorf("/dev/kvm: %w", err)
	}
	var a, b []float64
	for i := range exitRounds + 1 {
		x, err := ours.timeExits(each)
		if err != nil {
			return result{}, fmt.Errorf("run /dev/vmm: %w", err)
		}
		y, err := other.timeExits(each)
		if err != nil {
			return result{}, fmt.Errorf("run /dev/kvm: %w", err)
		}
		if i > 0 { // the first round warms both up
			a, b = append(a, x), append(b, y)
		}
	}
	return result{Ours: median(a), Other: median(b)}, nil
}

// timeExits runs the first vCPU n times and returns the nanoseconds of one run.
func (g *guest) timeExits(n int) (float64, error) {
	start := time.Now()
	for range n {
		if err := g.run(0); err != nil {
			return 0, err
		}
	}
	return float64(time.Since(start).Nanoseconds()) / float64(n), nil
}
