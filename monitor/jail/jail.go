// SPDX-License-Identifier: Apache-2.0

// Package jail gives up, in steps, what a monitor has no use for: the file
// system, capabilities, resources, and system calls.
//
// The daemon starts vmx in new user, mount, network, PID, IPC and UTS
// namespaces, with the VM's own user id mapped to 0. Enter does the rest before
// anything that a guest or a stranger wrote is read. Nothing undoes it.
package jail

import (
	"errors"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// ErrNotNamespaced means that the process was not started in namespaces of its
// own: what Enter does would hit the caller's system.
var ErrNotNamespaced = errors.New("jail: not started in namespaces of its own")

// Error is a step that failed.
type Error struct {
	Step string
	Err  error
}

// Error returns the step and its error.
func (e *Error) Error() string { return "jail: " + e.Step + ": " + e.Err.Error() }

// Unwrap returns the error.
func (e *Error) Unwrap() error { return e.Err }

// Enter locks the whole process in. Descriptors from first on are closed. It must
// be called before goroutines that need more than the filter of this package
// allows. After an error the process must end: it may be half locked in.
func Enter(first int) error {
	if os.Getpid() != 1 || os.Getuid() != 0 {
		return ErrNotNamespaced
	}
	for _, s := range []struct {
		what string
		do   func() error
	}{
		{"inherited descriptors", func() error { return closeFrom(first) }},
		{"empty root", emptyRoot},
		{"resource limits", limitResources},
		{"capabilities", noCapabilities},
		{"dumpable", func() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }},
		{"system calls", lockSyscalls},
	} {
		if err := s.do(); err != nil {
			return &Error{s.what, err}
		}
	}
	return nil
}

// closeFrom closes what was inherited without being meant to be. Descriptors of
// the Go runtime have the close-on-exec flag, and so did not come that way.
func closeFrom(first int) error {
	const far = 1024
	for fd := first; fd < far; fd++ {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd)
		}
	}
	return unix.CloseRange(far, 1<<31-1, 0)
}

// emptyRoot makes an empty, read-only file system the root of the mount
// namespace and lets go of the host's.
func emptyRoot() error {
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return os.NewSyscallError("make / private", err)
	}
	// Any folder that is always there serves as the place to mount on.
	const at = "/proc"
	flags := uintptr(unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
	if err := unix.Mount("none", at, "tmpfs", flags, "size=4k,nr_inodes=1,mode=0"); err != nil {
		return os.NewSyscallError("mount", err)
	}
	if err := unix.Chdir(at); err != nil {
		return os.NewSyscallError("chdir", err)
	}
	// With both arguments the same the old root is stacked on the new one and
	// needs no folder there: pivot_root(2), NOTES.
	if err := unix.PivotRoot(".", "."); err != nil {
		return os.NewSyscallError("pivot_root", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return os.NewSyscallError("unmount the old root", err)
	}
	return unix.Chdir("/")
}

// limitResources bounds what the process itself may take; its cgroup bounds
// memory and CPU. The size of files has no limit, as disks have any: a guest cannot
// make one grow, but who breaks into the monitor can.
func limitResources() error {
	for _, l := range []struct {
		resource int
		max      uint64
	}{
		{unix.RLIMIT_CORE, 0},     // guest memory is not written to a core file
		{unix.RLIMIT_NOFILE, 768}, // vCPUs, eventfds, viewers, sockets of the guest
		{unix.RLIMIT_NPROC, 256},  // threads: vCPUs and the runtime's own
		{unix.RLIMIT_MEMLOCK, 0},  // no use
		{unix.RLIMIT_MSGQUEUE, 0}, // no use
	} {
		limit := unix.Rlimit{Cur: l.max, Max: l.max}
		if err := unix.Setrlimit(l.resource, &limit); err != nil {
			return os.NewSyscallError("rlimit "+strconv.Itoa(l.resource), err)
		}
	}
	return nil
}

// lockSyscalls needs the thread that sets no_new_privs to be the one that loads
// the filter; the kernel then gives both to all threads.
func lockSyscalls() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return loadFilter(program[:])
}

// Seal takes away what was needed to set the machine up, before its guest runs:
// from then on there are no new rings, and those that there are stay as they are.
func Seal() error {
	if err := loadFilter(sealed[:]); err != nil {
		return &Error{"seal", err}
	}
	return nil
}
