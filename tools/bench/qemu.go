// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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

// q35 has disks: the machine of QEMU that is made for it, with its fastest disk.
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

// qemu is a running QEMU. Its serial line is its input and output.
type qemu struct {
	cmd    *exec.Cmd
	stop   context.CancelFunc
	in     io.WriteCloser
	out    io.Reader
	stderr bytes.Buffer
}

// startQEMU starts a configuration of QEMU with what it boots.
func startQEMU(ctx context.Context, p peer, img images) (*qemu, error) {
	args := []string{"-M", p.machine, "-accel", "kvm", "-cpu", "host", "-smp", "1", "-m", strconv.Itoa(guestMemory),
		"-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-serial", "stdio"}
	if img.disk == "" {
		args = append(args, "-kernel", img.kernel, "-initrd", img.initrd, "-append", cmdline)
	}
	if disk := img.disk + img.data; disk != "" {
		args = append(args, "-object", "iothread,id=io", "-drive", "if=none,id=disk,format=raw,aio=io_uring,file="+disk,
			"-device", "virtio-blk-pci,drive=disk,iothread=io")
	}
	ctx, stop := context.WithCancel(ctx)
	q := &qemu{cmd: exec.CommandContext(ctx, "qemu-system-x86_64", args...), stop: stop}
	q.cmd.Stderr = &q.stderr
	in, err1 := q.cmd.StdinPipe()
	out, err2 := q.cmd.StdoutPipe()
	if err := errors.Join(err1, err2); err != nil {
		stop()
		return nil, err
	}
	q.in, q.out = in, out
	if err := q.cmd.Start(); err != nil {
		stop()
		return nil, err
	}
	return q, nil
}

// end kills it, which is how it ends. It returns the end of what QEMU complained of.
func (q *qemu) end() string {
	q.stop()
	_ = q.cmd.Wait()
	return tail(q.stderr.String(), 5)
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
	start := time.Now()
	q, err := startQEMU(ctx, p, img)
	if err != nil {
		return 0, err
	}
	err = waitMarker(q.out, img.marker())
	took := time.Since(start).Seconds()
	complaint := q.end()
	if err != nil {
		return 0, fmt.Errorf("%w\n%s", err, complaint)
	}
	return took, nil
}
