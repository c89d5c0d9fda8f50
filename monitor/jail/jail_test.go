// SPDX-License-Identifier: Apache-2.0

//go:build !cgo

// vmx is a static program. With cgo, as the race detector wants it, libc makes
// the threads, by calls that the jail refuses.

package jail

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const inmateEnv = "JAIL_TEST_INMATE"

// inherited is a descriptor that the inmate gets and must not keep.
const inherited = 3

func TestMain(m *testing.M) {
	if os.Getenv(inmateEnv) != "" {
		os.Exit(inmate())
	}
	os.Exit(m.Run())
}

// attempt is something that an inmate tries, and the error that it must get.
type attempt struct {
	what string
	want error
	try  func() error
}

func errnoOf(trap, a, b, c uintptr) error {
	if _, _, e := unix.Syscall(trap, a, b, c); e != 0 {
		return e
	}
	return nil
}

var attempts = []attempt{
	{"open a file", unix.EPERM, func() error { _, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0); return err }},
	{"open the root", unix.EPERM, func() error { _, err := unix.Open("/", unix.O_RDONLY, 0); return err }},
	{"make a file", unix.EPERM, func() error { return unix.Mkdir("/x", 0o700) }},
	{"make a socket", unix.EPERM, func() error { _, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0); return err }},
	{"connect", unix.EPERM, func() error { return unix.Connect(0, &unix.SockaddrUnix{Name: "/run/x"}) }},
	{"execute", unix.EPERM, func() error { return unix.Exec("/proc/self/exe", []string{"x"}, nil) }},
	{"make a process", unix.EPERM, func() error { return errnoOf(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0) }},
	{"clone3", unix.EPERM, func() error { return errnoOf(unix.SYS_CLONE3, 0, 0, 0) }},
	{"ptrace", unix.EPERM, func() error { return unix.PtraceAttach(1) }},
	{"kill", unix.EPERM, func() error { return unix.Kill(1, 0) }},
	{"mount", unix.EPERM, func() error { return unix.Mount("none", "/", "tmpfs", 0, "") }},
	{"unshare", unix.EPERM, func() error { return unix.Unshare(unix.CLONE_NEWUSER) }},
	{"bpf", unix.EPERM, func() error { return errnoOf(unix.SYS_BPF, 0, 0, 0) }},
	{"a ring", unix.EPERM, func() error { return errnoOf(unix.SYS_IO_URING_SETUP, 1, 0, 0) }},
	{"change a ring", unix.EPERM, func() error { return errnoOf(unix.SYS_IO_URING_REGISTER, 0, 0, 0) }},
	{"use what is no ring", unix.EOPNOTSUPP, func() error { return errnoOf(unix.SYS_IO_URING_ENTER, 0, 0, 0) }},
	{"another filter", unix.EPERM, func() error { return errnoOf(unix.SYS_SECCOMP, 1, 0, 0) }},
	{"executable memory", unix.EPERM, func() error {
		_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
		return err
	}},
	{"a terminal's ioctl", unix.EPERM, func() error { _, err := unix.IoctlGetTermios(0, unix.TCGETS); return err }},
	{"a tap of another name", unix.EPERM, func() error { return unix.IoctlSetInt(0, unix.TUNSETIFF, 0) }},
	{"a tap that stays", unix.EPERM, func() error { return unix.IoctlSetInt(0, unix.TUNSETPERSIST, 1) }},
	{"a tap's filter", unix.EPERM, func() error { return unix.IoctlSetInt(0, unix.TUNATTACHFILTER, 0) }},
	{"a tap's offloads, on what is none", unix.ENOTTY, func() error { return unix.IoctlSetInt(0, unix.TUNSETOFFLOAD, 0) }},
	{"a vhost's log of what it wrote", unix.EPERM, func() error { return unix.IoctlSetInt(0, 0x4008af04, 0) }},
	{"KVM_RUN", unix.EPERM, func() error { return unix.IoctlSetInt(0, 0xae80, 0) }},
	{"a monitor's ioctl, on what is no VM", unix.ENOTTY, func() error { return unix.IoctlSetInt(0, 0xbb80, 0) }},
	{"memory", nil, func() error {
		m, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		return errors.Join(err, unix.Munmap(m))
	}},
	{"a memfd", unix.EPERM, func() error { _, err := unix.MemfdCreate("x", 0); return err }},
	{"duplicate a descriptor", unix.EPERM, func() error { _, err := unix.FcntlInt(0, unix.F_DUPFD, 9); return err }},
	{"an inherited descriptor", unix.EBADF, func() error { _, err := unix.FcntlInt(inherited, unix.F_GETFD, 0); return err }},
	{"an eventfd", nil, func() error { fd, err := unix.Eventfd(0, 0); return errors.Join(err, unix.Close(fd)) }},
}

// inmate enters the jail, tries everything and says what went other than it
// must; it also shows that goroutines, threads and collections go on.
func inmate() int {
	if err := Enter(3); err != nil {
		fmt.Println(err)
		return 1
	}
	status := 0
	if err := errnoOf(unix.SYS_IO_URING_REGISTER, 0, 0, 0); err != unix.EOPNOTSUPP {
		fmt.Println("change a ring, before the seal:", err)
		status = 1
	}
	if err := Seal(); err != nil {
		fmt.Println(err)
		return 1
	}
	for _, a := range attempts {
		if err := a.try(); !errors.Is(err, a.want) {
			fmt.Printf("%s: got %v, want %v\n", a.what, err, a.want)
			status = 1
		}
	}
	done := make(chan []byte)
	for range 64 {
		go func() {
			runtime.LockOSThread() // so that there are 64 threads, most of them new
			done <- bytes.Repeat([]byte{1}, 1<<16)
		}()
	}
	for range 64 {
		<-done
	}
	return status
}

func command(t *testing.T) *exec.Cmd {
	t.Helper()
	// Not by its path: the folder of test binaries is closed to other users.
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), inmateEnv+"=1")
	return cmd
}

func TestEnter(t *testing.T) {
	cmd := command(t)
	const uid = 200123
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID |
			unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: ownID(uid, os.Getuid()), Size: 1}},
		Credential:  &syscall.Credential{Uid: 0, Gid: 0, NoSetGroups: true},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: ownID(uid, os.Getgid()), Size: 1}},
	}
	cmd.ExtraFiles = []*os.File{os.Stdin}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// ownID is the id to map: root may map any, others only their own.
func ownID(wish, own int) int {
	if own == 0 {
		return wish
	}
	return own
}

func TestEnterRefusesTheHost(t *testing.T) {
	out, err := command(t).CombinedOutput()
	if err == nil || !strings.Contains(string(out), ErrNotNamespaced.Error()) {
		t.Fatalf("entered without namespaces: %v\n%s", err, out)
	}
}
