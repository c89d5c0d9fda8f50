// SPDX-License-Identifier: Apache-2.0

// Package launch starts monitors and speaks to them. A monitor gets sockets and
// files by inheritance, a user id and namespaces of its own, and no path. It
// outlives the daemon, which finds it again by its socket and process.
package launch

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"vmctl/daemon/vm"
)

// Config is where and how monitors are started.
type Config struct {
	VMX      string // program
	RunDir   string // sockets: ctl/, console/, vsock/
	StateDir string // vms/UUID/
	Group    int    // gid that may reach consoles; -1: none but the daemon's own
	Admins   int    // gid that may reach the sockets of guests; -1: likewise
	Cgroup   string // delegated cgroup v2 folder; empty: none
	// Unconfined leaves a monitor in the daemon's user id and namespaces, for
	// tests without privileges. There is no flag for it.
	Unconfined bool
	Log        *slog.Logger
}

// Launcher starts and finds monitors. It is safe for concurrent use; of one VM,
// one call at a time.
type Launcher struct {
	c     Config
	found func() (map[string][]vm.Process, error) // processes of an earlier daemon
}

// New makes the folders that monitors need.
func New(c Config) (*Launcher, error) {
	l := &Launcher{c: c}
	l.found = sync.OnceValues(l.scan)
	for _, d := range []struct {
		path string
		mode fs.FileMode
		gid  int
	}{
		{filepath.Join(c.RunDir, "ctl"), 0o700, -1},
		{filepath.Join(c.RunDir, "console"), 0o750, c.Group},
		{filepath.Join(c.RunDir, "vsock"), 0o750, c.Admins},
		{filepath.Join(c.StateDir, "vms"), 0o700, -1},
	} {
		if err := makeDir(d.path, d.mode, d.gid); err != nil {
			return nil, fmt.Errorf("launch: %w", err)
		}
	}
	if c.Cgroup != "" {
		if err := prepareCgroup(c.Cgroup); err != nil {
			return nil, fmt.Errorf("launch: cgroup: %w", err)
		}
	}
	return l, nil
}

// makeDir makes a folder, or gives one that is there its mode and group.
func makeDir(path string, mode fs.FileMode, gid int) error {
	if err := os.Mkdir(path, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := os.Chmod(path, mode); err != nil {
		return err
	}
	if gid < 0 {
		return nil
	}
	return os.Chown(path, -1, gid)
}

func (l *Launcher) ctlSocket(uuid string) string {
	return filepath.Join(l.c.RunDir, "ctl", uuid+".sock")
}

// ConsoleSocket is where the console of a VM is reached on this host.
func (l *Launcher) ConsoleSocket(uuid string) string {
	return filepath.Join(l.c.RunDir, "console", uuid+".sock")
}

func (l *Launcher) stateDir(uuid string) string {
	return filepath.Join(l.c.StateDir, "vms", uuid)
}

// Forget removes what a deleted VM left: sockets, scrollback, cgroup.
func (l *Launcher) Forget(uuid string) error {
	var errs []error
	for _, path := range []string{l.ctlSocket(uuid), l.ConsoleSocket(uuid)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	errs = append(errs, os.RemoveAll(l.vsock(uuid).dir), os.RemoveAll(l.stateDir(uuid)), l.removeCgroup(uuid))
	return errors.Join(errs...)
}
