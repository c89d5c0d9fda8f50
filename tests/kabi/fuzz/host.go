// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// What the supervisor makes on the machine for its workers.

const fileSize = 1 << 20

// makeFiles makes the disks, some of them behind loop devices if there are any.
// The function removes them.
func makeFiles() (func(), error) {
	var loops []int
	end := func() {
		for _, fd := range loops {
			unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0)
			unix.Close(fd)
		}
		os.RemoveAll(filesDir)
	}
	if err := os.MkdirAll(filesDir, 0o755); err != nil {
		return end, err
	}
	for i := range regularFiles + loopDevices {
		name := filepath.Join(filesDir, "disk"+strconv.Itoa(i))
		if err := os.WriteFile(name, make([]byte, fileSize), 0o666); err != nil {
			return end, err
		}
		if err := os.Chmod(name, 0o666); err != nil {
			return end, err
		}
		if i < regularFiles {
			continue
		}
		fd, err := loopOf(i-regularFiles, name)
		if err != nil {
			fmt.Printf("without loop devices: %v\n", err)
			return end, nil
		}
		loops = append(loops, fd)
	}
	return end, nil
}

// loopOf puts a file behind a loop device. Opening the control device makes the
// kernel load what it needs.
func loopOf(n int, name string) (int, error) {
	control, err := unix.Open("/dev/loop-control", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(control)
	path := "/dev/loop" + strconv.Itoa(n)
	if _, err := os.Stat(path); err != nil {
		if _, err := unix.IoctlRetInt(control, unix.LOOP_CTL_GET_FREE); err != nil {
			return -1, err
		}
	}
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return -1, err
	}
	defer file.Close()
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.IoctlSetInt(fd, unix.LOOP_SET_FD, int(file.Fd())); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("%s: %w", path, err)
	}
	return fd, nil
}

// freezer is a control group of all workers. Without one nothing is frozen.
type freezer struct{ dir string }

func newFreezer() *freezer {
	dir := "/sys/fs/cgroup/fuzz"
	if err := os.Mkdir(dir, 0o755); err != nil && !os.IsExist(err) {
		return &freezer{}
	}
	return &freezer{dir}
}

func (f *freezer) write(file, text string) {
	if f.dir != "" {
		// A worker may have ended, and there may be no freezer.
		_ = os.WriteFile(filepath.Join(f.dir, file), []byte(text), 0)
	}
}

func (f *freezer) add(pid int) { f.write("cgroup.procs", strconv.Itoa(pid)) }

func (f *freezer) freeze(yes bool) {
	text := "0"
	if yes {
		text = "1"
	}
	f.write("cgroup.freeze", text)
}

func (f *freezer) remove() {
	f.freeze(false)
	if f.dir != "" {
		unix.Rmdir(f.dir)
	}
}
