// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

const (
	bootGoal  = 1.0
	clockBand = 0.03    // what a wall clock cannot tell apart
	memGoal   = 5 << 20 // bytes
)

// measured is what the inside of the machine says.
type measured struct {
	Peer    string    // QEMU's options that were the fastest
	Ours    []float64 // seconds to init, one of each pair
	Other   []float64
	Private []float64 // bytes of an idle vmx, beside guest memory
}

// debianPairs is how many pairs of boots of a whole Debian there are: each takes minutes.
const debianPairs = 3

// benchDebian boots a whole Debian from its disk under vmx and under QEMU, in turns, by
// the same firmware.
func benchDebian(ctx context.Context, s setup) ([]row, error) {
	self, vmx, disk := filepath.Join(s.bin, "bench"), filepath.Join(s.bin, "vmx"), filepath.Join(s.guest, "debian.img")
	for _, f := range []string{self, vmx, disk} {
		if _, err := os.Stat(f); err != nil {
			return nil, fmt.Errorf("%w: make build disk", err)
		}
	}
	fmt.Fprintf(s.progress, "debian: %d pairs in the lab, about three minutes each\n", debianPairs)
	var m measured
	err := s.inLab(ctx, &m, append(s.size(), "--timeout", "1h"), self, bootWord, "--vmx", vmx, "--disk", disk, "--pairs", strconv.Itoa(debianPairs))
	if err != nil {
		return nil, err
	}
	if len(m.Ours) != debianPairs || len(m.Other) != debianPairs || len(m.Private) == 0 {
		return nil, errors.New("some boots are missing")
	}
	return []row{
		against("Debian from a disk to login", m.Peer, "s", median(m.Ours), median(m.Other), bootGoal, clockBand),
		limit("private memory of vmx under an idle Debian", "bytes", median(m.Private), memGoal),
	}, nil
}

// benchBoot boots the same kernel and initramfs under vmx and under QEMU, in
// turns, and looks at vmx's memory while its guest is idle.
func benchBoot(ctx context.Context, s setup) ([]row, error) {
	self, vmx, initrd := filepath.Join(s.bin, "bench"), filepath.Join(s.bin, "vmx"), filepath.Join(s.guest, "initrd.img")
	for _, f := range []string{self, vmx, initrd} {
		if _, err := os.Stat(f); err != nil {
			return nil, fmt.Errorf("%w: make build guest", err)
		}
	}
	fmt.Fprintf(s.progress, "boot: %d pairs in the lab, about half a minute each\n", s.pairs)
	var m measured
	err := s.inLab(ctx, &m, s.size(), self, bootWord, "--vmx", vmx, "--initrd", initrd, "--pairs", strconv.Itoa(s.pairs))
	if err != nil {
		return nil, err
	}
	if len(m.Ours) != s.pairs || len(m.Other) != s.pairs || len(m.Private) == 0 {
		return nil, errors.New("some boots are missing")
	}
	return []row{
		against("boot to init", m.Peer, "s", median(m.Ours), median(m.Other), bootGoal, clockBand),
		limit("private memory of an idle vmx", "bytes", median(m.Private), memGoal),
	}, nil
}
