// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// leftFor is how long VMs may outlive the last process: their ends are the work of
// queues and of the collector of descriptors in sockets.
const leftFor = 30 * time.Second

// findFamily looks up what workers in other namespaces cannot.
func (s *supervisor) findFamily() error {
	conn, err := genetlink.Dial(nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	f, err := conn.GetFamily(abi.GenlName)
	if err != nil {
		return fmt.Errorf("family %s: %w", abi.GenlName, err)
	}
	s.family = f.ID
	s.boards.family.Store(uint32(f.ID))
	for _, g := range f.Groups {
		s.boards.group.Store(g.ID)
	}
	return nil
}

// nothingLeft waits until the module has no VM and no backend any more.
func (s *supervisor) nothingLeft() error {
	conn, err := genetlink.Dial(nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	var vms, backends int
	for end := time.Now().Add(leftFor); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		collect()
		if vms, err = s.dump(conn, abi.CmdVMGet); err != nil {
			return err
		}
		if backends, err = s.dump(conn, abi.CmdDeviceGet); err != nil {
			return err
		}
		if vms == 0 && backends == 0 {
			return nil
		}
	}
	return fmt.Errorf("%d VMs and %d backends are left %v after the last process ended%s", vms, backends, leftFor, survivors())
}

// survivors shows the processes of this program that are left: forked children.
func survivors() string {
	var b strings.Builder
	dirs, _ := filepath.Glob("/proc/[1-9]*")
	for _, d := range dirs {
		pid, err := strconv.Atoi(filepath.Base(d))
		exe, _ := os.Readlink(d + "/exe")
		if self, _ := os.Executable(); err == nil && pid != os.Getpid() && exe == self {
			fmt.Fprintf(&b, "\nprocess %d:\n%s", pid, stacks(pid))
		}
	}
	return b.String()
}

// dump counts the objects that a command lists; the first message is none.
func (s *supervisor) dump(conn *genetlink.Conn, cmd uint8) (int, error) {
	req := genetlink.Message{Header: genetlink.Header{Command: cmd, Version: abi.GenlVersion}}
	msgs, err := conn.Execute(req, s.family, netlink.Request|netlink.Dump)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return 0, nil // an older module
	}
	if err != nil {
		return 0, fmt.Errorf("dump %d: %w", cmd, err)
	}
	return max(0, len(msgs)-1), nil
}

// collect makes the kernel look for sockets that hold nothing but each other.
func collect() {
	if pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err == nil {
		unix.Close(pair[0])
		unix.Close(pair[1])
	}
}
