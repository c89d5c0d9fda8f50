// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"vmctl/daemon/vm"
)

// Limits of a monitor beside its guest's memory.
const (
	monitorOverhead = 256 << 20 // bytes: page tables, kernel memory of KVM, the monitor
	monitorPids     = 512       // threads: one per vCPU, and Go's
)

// ownCgroup is the child of the delegated cgroup that the daemon itself is in.
// A unit names it as DelegateSubgroup=: once monitors run beside it, nothing
// can be started in the delegated cgroup itself.
const ownCgroup = "daemon"

// FindCgroup returns the cgroup v2 folder that was delegated to this process,
// or "" when there is none: no v2 hierarchy, or one that it may not change.
func FindCgroup() string {
	raw, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(raw)) {
		path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok || path == "/" {
			continue
		}
		dir := filepath.Join("/sys/fs/cgroup", path)
		if filepath.Base(dir) == ownCgroup { // the service manager's DelegateSubgroup=, or a restart
			dir = filepath.Dir(dir)
		}
		if unix.Access(dir, unix.W_OK) == nil && unix.Access(filepath.Join(dir, "cgroup.subtree_control"), unix.W_OK) == nil {
			return dir
		}
	}
	return ""
}

// prepareCgroup makes two children: a cgroup with processes can have none that
// limit anything. The daemon moves into the first, monitors into the second.
func prepareCgroup(root string) error {
	own, vms := filepath.Join(root, ownCgroup), filepath.Join(root, "vms")
	for _, dir := range []string{own, vms} {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if err := writeFile(filepath.Join(own, "cgroup.procs"), "0"); err != nil {
		return err
	}
	for _, dir := range []string{root, vms} {
		for _, c := range []string{"+memory", "+pids", "+cpu"} {
			// A controller that was not delegated limits nothing, which is no
			// reason to start no VM.
			_ = writeFile(filepath.Join(dir, "cgroup.subtree_control"), c)
		}
	}
	return nil
}

// makeCgroup makes the leaf of one monitor and opens it; nil without cgroups.
func (l *Launcher) makeCgroup(spec vm.MonitorSpec) (*os.File, error) {
	if l.c.Cgroup == "" {
		return nil, nil
	}
	leaf := l.leaf(spec.UUID)
	if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	for file, value := range map[string]string{
		"memory.max":      fmt.Sprint(spec.MemoryBytes + monitorOverhead),
		"memory.swap.max": "0",
		"pids.max":        fmt.Sprint(monitorPids),
	} {
		// Absent when the controller was not delegated.
		if err := writeFile(filepath.Join(leaf, file), value); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	fd, err := unix.Open(leaf, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: leaf, Err: err}
	}
	return os.NewFile(uintptr(fd), leaf), nil
}

func (l *Launcher) leaf(uuid string) string { return filepath.Join(l.c.Cgroup, "vms", uuid) }

func (l *Launcher) removeCgroup(uuid string) error {
	if l.c.Cgroup == "" {
		return nil
	}
	if err := os.Remove(l.leaf(uuid)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// writeFile writes a control file, which must exist.
func writeFile(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}
