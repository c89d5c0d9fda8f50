// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// insides are the hidden commands by which bench runs itself in the lab. Each prints
// one line of JSON.
var insides = map[string]func(context.Context, []string) error{
	bootWord: insideBoot,
	diskWord: insideDisk,
}

const (
	bootWord = "inside-boot"
	diskWord = "inside-disk"
)

const (
	// marker is what the lab's nested guest prints first in its init.
	marker = "vmctl-guest: init reached"
	// cmdline is the same for every monitor.
	cmdline = "console=ttyS0 reboot=t panic=-1 quiet"
	// bootTime is the most that one boot may take, nested and emulated.
	bootTime = 5 * time.Minute
	// idleTime is how long a guest rests before its monitor's memory is read.
	idleTime = 2 * time.Second

	guestMemory = 512 // MiB
)

// firmware boots disks, here and in QEMU.
const firmware = "/usr/share/seabios/bios-256k.bin"

// images are what a guest boots: a kernel and its initramfs, or a disk. What it does
// not boot is there beside it.
type images struct {
	kernel, initrd, disk string
	data                 string // a disk beside a kernel
}

// marker is what the guest prints when it is there.
func (i images) marker() string {
	if i.disk != "" {
		return "guest login:"
	}
	return marker
}

// fresh is the images with a copy of the disk, as every boot writes to it, and what
// removes the copy.
func (i images) fresh() (images, func() error, error) {
	if i.disk == "" {
		return i, func() error { return nil }, nil
	}
	dir, err := os.MkdirTemp("", "bench-disk")
	if err != nil {
		return i, nil, err
	}
	remove := func() error { return os.RemoveAll(dir) }
	to := filepath.Join(dir, "disk")
	if out, err := exec.Command("cp", "--sparse=always", i.disk, to).CombinedOutput(); err != nil {
		return i, nil, errors.Join(fmt.Errorf("cp: %w: %s", err, out), remove())
	}
	i.disk = to
	return i, remove, nil
}

// insideBoot boots guests in turns.
func insideBoot(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet(bootWord, flag.ContinueOnError)
	var img images
	vmx := fs.String("vmx", "", "the monitor")
	fs.StringVar(&img.kernel, "kernel", "/boot/vmlinuz", "the guest's kernel: the machine's own")
	fs.StringVar(&img.initrd, "initrd", "", "the guest's initramfs")
	fs.StringVar(&img.disk, "disk", "", "boot this disk instead, by firmware")
	pairs := fs.Int("pairs", 5, "pairs of boots")
	if err := fs.Parse(args); err != nil {
		return err
	}
	files := []string{img.kernel, img.initrd, *vmx}
	if img.disk != "" {
		files = []string{firmware, img.disk, *vmx}
	}
	if err := warm(files...); err != nil {
		return err
	}
	program, err := filepath.Abs(*vmx) // it starts in another folder
	if err != nil {
		return err
	}
	peer, err := fastestQEMU(ctx, img)
	if err != nil {
		return err
	}
	m := measured{Peer: peer.name}
	for i := range *pairs {
		ours, private, err := bootVMX(ctx, program, img)
		if err != nil {
			return fmt.Errorf("vmx: %w", err)
		}
		other, err := bootQEMU(ctx, peer, img)
		if err != nil {
			return fmt.Errorf("%s: %w", peer.name, err)
		}
		fmt.Fprintf(os.Stderr, "pair %d: vmx %.2f s, QEMU %.2f s, vmx holds %d KiB\n", i+1, ours, other, int(private)>>10)
		m.Ours, m.Other, m.Private = append(m.Ours, ours), append(m.Other, other), append(m.Private, private)
	}
	return json.NewEncoder(os.Stdout).Encode(m)
}

// warm reads files once, so that the first boot does not pay for the disk.
func warm(paths ...string) error {
	for _, p := range paths {
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// waitMarker reads a guest's serial line until the guest is there. What it read stands
// in the error when it does not come.
func waitMarker(r io.Reader, marker string) error {
	var text []byte
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		text = append(text, buf[:n]...)
		if bytes.Contains(text, []byte(marker)) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the guest did not come up: %w\n%s", err, tail(string(text), 15))
		}
		if len(text) > 1<<20 {
			return fmt.Errorf("the guest wrote more than 1 MiB:\n%s", tail(string(text), 15))
		}
	}
}
