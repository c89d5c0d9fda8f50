// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"vmctl/daemon/vm"
)

// Sweep kills what an earlier daemon spawned for a VM and was killed before it
// could record. The processes are looked for once, when the first VM is
// restored; what this daemon spawns later is never among them.
func (l *Launcher) Sweep(spec vm.MonitorSpec, keep vm.Process) error {
	found, err := l.found()
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	var errs []error
	for _, p := range found[l.owner(spec)] {
		if p != keep {
			l.c.Log.Warn("monitor without a record is ended", "op", "sweep", "vm", spec.UUID, "pid", p.PID)
			errs = append(errs, killProcess(p))
		}
	}
	return errors.Join(errs...)
}

// owner is what tells the processes of a VM from all others: command line and
// user id. A monitor without a record never had a guest, so it did not lie
// about the first; the second alone may be somebody else's as well.
func (l *Launcher) owner(spec vm.MonitorSpec) string {
	uid := spec.UID
	if l.c.Unconfined {
		uid = uint32(os.Getuid())
	}
	return fmt.Sprintf("%d %s", uid, spec.UUID)
}

// scan returns all monitors by owner.
func (l *Launcher) scan() (map[string][]vm.Process, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	found := make(map[string][]vm.Process)
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		// What ends meanwhile needs no sweeping.
		owner, ok := ownerOf(dir)
		start, err := startTime(pid)
		if ok && err == nil {
			found[owner] = append(found[owner], vm.Process{PID: pid, Start: start})
		}
	}
	return found, nil
}

func ownerOf(dir string) (string, bool) {
	raw, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	argv := bytes.Split(raw, []byte{0})
	if err != nil || len(argv) < 3 || string(argv[0]) != "vmx" || string(argv[1]) != "--uuid" {
		return "", false
	}
	raw, err = os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return "", false
	}
	_, rest, _ := bytes.Cut(raw, []byte("\nUid:"))
	fields := bytes.Fields(rest[:min(len(rest), 64)])
	if len(fields) == 0 {
		return "", false
	}
	return string(fields[0]) + " " + string(argv[2]), true // the real user id
}

// killProcess ends a process that is still the same.
func killProcess(p vm.Process) error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return nil // it ended
	}
	defer unix.Close(fd)
	if start, err := startTime(p.PID); err != nil || start != p.Start {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return os.NewSyscallError("pidfd_send_signal", err)
	}
	return nil
}
