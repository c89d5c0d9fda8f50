// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const diskSize = 64 // MiB

// pattern is one load of a disk.
type pattern struct {
	name       string
	write      bool
	sequential bool
	depth      int // operations under way
	bytes      int
	count      int // operations in one run
}

var patterns = []pattern{
	{"4 KiB random read, depth 1", false, false, 1, 4 << 10, 1000},
	{"4 KiB random read, depth 32", false, false, 32, 4 << 10, 8000},
	{"4 KiB random write, depth 1", true, false, 1, 4 << 10, 1000},
	{"4 KiB random write, depth 32", true, false, 32, 4 << 10, 8000},
	{"1 MiB sequential read", false, true, 4, 1 << 20, 256},
	{"1 MiB sequential write", true, true, 4, 1 << 20, 256},
}

// arguments are the loader's, for so many operations.
func (p pattern) arguments(count int) string {
	word := func(is bool, yes, no string) string {
		if is {
			return yes
		}
		return no
	}
	return fmt.Sprintf("disk /dev/vda %s %s %d %d %d", word(p.write, "write", "read"),
		word(p.sequential, "sequential", "random"), p.depth, p.bytes, count)
}

// benchDisk does the same loads on a disk under vmx and under QEMU.
func benchDisk(ctx context.Context, s setup) ([]row, error) {
	return s.compareLoads(ctx, "disk", diskWord)
}

// insideDisk does the loads under both monitors.
func insideDisk(ctx context.Context, args []string) (err error) {
	var l loads
	if err := l.parse(diskWord, args); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, loadsTime)
	defer cancel()
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	img, err := l.images(dir)
	if err != nil {
		return err
	}
	disk, unmount, err := ramDisk(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unmount()) }()
	img.data = disk
	for _, p := range patterns {
		l.list = append(l.list, load{p.name, p.count, p.arguments})
	}
	return l.run(ctx, side{"vmx", func() (*guest, error) { return guestOfVMX(ctx, l.vmx, img) }},
		side{q35.name, func() (*guest, error) { return guestOfQEMU(ctx, q35, img) }})
}

// ramDisk makes a file on a file system in memory that is like those of real disks, and
// what unmounts it: a tmpfs lets no ring read without a thread of its own.
func ramDisk(dir string) (file string, unmount func() error, err error) {
	const device = "/dev/ram0"
	at := filepath.Join(dir, "disk")
	if err := os.Mkdir(at, 0o700); err != nil {
		return "", nil, err
	}
	for _, argv := range [][]string{
		{"modprobe", "brd", "rd_nr=1", fmt.Sprintf("rd_size=%d", 2*diskSize<<10)},
		{"mke2fs", "-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0", device},
		{"mount", device, at},
	} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			return "", nil, fmt.Errorf("%s: %w: %s", argv[0], err, out)
		}
	}
	unmount = func() error { return os.NewSyscallError("umount", unix.Unmount(at, 0)) }
	file = filepath.Join(at, "disk")
	if err := writeTimes(file, bytes.Repeat([]byte{0xa5}, 1<<20), diskSize); err != nil {
		return "", nil, errors.Join(err, unmount())
	}
	return file, unmount, nil
}

// writeTimes fills a file with the same bytes, over and over.
func writeTimes(path string, b []byte, times int) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for range times {
		if _, err := f.Write(b); err != nil {
			return err
		}
	}
	return f.Sync()
}
