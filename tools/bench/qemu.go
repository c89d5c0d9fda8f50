// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"
)

// peer is one configuration of QEMU.
type peer struct {
	name    string
	machine string
}

// peers are those that QEMU's own page on the microvm machine recommends, each
// with a serial line, because the guest needs one to say that it is there.
var peers = []peer{
	{"QEMU microvm", "microvm,acpi=on"},
	{"QEMU microvm, no ACPI", "microvm,acpi=off"},
	{"QEMU microvm, no ACPI, no legacy", "microvm,acpi=off,x-option-roms=off,pit=off,pic=off,rtc=off,isa-serial=on"},
}

// q35 boots disks: the machine of QEMU that is made for it, with its fastest disk.
var q35 = peer{"QEMU q35 with virtio", "q35"}

// fastestQEMU boots each configuration once and takes the best. One that does not
// boot this kernel is out.
func fastestQEMU(ctx context.Context, img images) (peer, error) {
	if img.disk != "" {
		return q35, nil
	}
	var best peer
	var bestTime float64
	var errs []error
	for _, p := range peers {
		took, err := bootQEMU(ctx, p, img)
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", p.name, err)
			errs = append(errs, fmt.Errorf("%s: %w", p.name, err))
			continue
		}
		fmt.Fprintf(os.Stderr, "%s: %.2f s\n", p.name, took)
		if best.name == "" || took < bestTime {
			best, bestTime = p, took
		}
	}
	if best.name == "" {
		return best, errors.Join(errs...)
	}
	return best, nil
}

// bootQEMU returns the seconds from the start of QEMU to the guest's init.
func bootQEMU(ctx context.Context, p peer, img images) (seconds float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, bootTime)
	defer cancel()
	img, remove, err := img.fresh()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	args := []string{"-M", p.machine, "-accel", "kvm", "-cpu", "host", "-smp", "1", "-m", strconv.Itoa(guestMemory),
		"-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-serial", "stdio"}
	if img.disk != "" {
		args = append(args, "-object", "iothread,id=io", "-drive", "if=none,id=disk,format=raw,aio=io_uring,file="+img.disk,
			"-device", "virtio-blk-pci,drive=disk,iothread=io")
	} else {
		args = append(args, "-kernel", img.kernel, "-initrd", img.initrd, "-append", cmdline)
	}
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	err = waitMarker(out, img.marker())
	took := time.Since(start).Seconds()
	cancel()
	// It was killed, which is how it ends.
	_ = cmd.Wait()
	if err != nil {
		return 0, fmt.Errorf("%w\n%s", err, tail(stderr.String(), 5))
	}
	return took, nil
}
