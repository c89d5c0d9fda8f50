// SPDX-License-Identifier: Apache-2.0

// Package vmtest plays vmctld's part for tests of the monitor: it makes a VM,
// starts vmx in a jail of its own with the descriptors that it expects, hands the
// VM over, and watches the console. It runs as root in the lab.
package vmtest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/abi"
	"vmctl/monitor/ctl"
	"vmctl/monitor/spec"
)

// Where the lab has what a guest boots; relative paths are from the checkout, in
// which tests/inlab runs.
const (
	Kernel = "/boot/vmlinuz"
	Initrd = "build/guest/initrd.img"
	Binary = "build/bin/vmx"
)

// uid is the user that vmx runs as, which is nobody else's.
const uid = 250001

// Timeout bounds a guest's boot, and every other wait.
const Timeout = 6 * time.Minute

// VMX is a running monitor and its VM.
type VMX struct {
	t       testing.TB
	VM      *abi.VM // with all rights
	ID      uint64
	Client  *ctl.Client
	Process *os.Process
	Events  chan ctl.Message // what vmx reported; those beyond 256 are lost
	Dir     string
	log     *logBuffer
	exited  chan struct{}
	state   *os.ProcessState
}

// Start starts a monitor without a VM. It ends with the test.
func Start(t testing.TB) *VMX {
	t.Helper()
	return StartIn(t, t.TempDir())
}

// StartIn is Start with sockets and scrollback in a folder of the caller's.
func StartIn(t testing.TB, dir string) *VMX {
	t.Helper()
	v := &VMX{t: t, Dir: dir, Events: make(chan ctl.Message, 256), log: new(logBuffer), exited: make(chan struct{})}
	v.spawn()
	t.Cleanup(v.cleanup)
	v.Dial()
	return v
}

func (v *VMX) must(err error) {
	v.t.Helper()
	if err != nil {
		v.t.Fatalf("%v\nvmx says:\n%s", err, v.log)
	}
}

// Fatal fails the test with what vmx said.
func (v *VMX) Fatal(err error) { v.t.Helper(); v.must(err) }

// Context ends with the test, or after Timeout.
func (v *VMX) Context() context.Context {
	ctx, cancel := context.WithTimeout(v.t.Context(), Timeout)
	v.t.Cleanup(cancel)
	return ctx
}

func (v *VMX) path(name string) string { return filepath.Join(v.Dir, name) }

// ConsoleSocket is the path of the console's socket.
func (v *VMX) ConsoleSocket() string { return v.path("console.sock") }

// Log is what vmx wrote to its log.
func (v *VMX) Log() string { return v.log.String() }

func (v *VMX) spawn() {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	v.must(err)
	logOut, logIn, err := os.Pipe()
	v.must(err)
	scroll, err := os.OpenFile(v.path("console.log"), os.O_RDWR|os.O_CREATE, 0o600)
	v.must(err)
	control, consoles := v.listen("ctl.sock", unix.SOCK_SEQPACKET), v.listen("console.sock", unix.SOCK_STREAM)
	files := []*os.File{null, null, logIn, control, consoles, scroll}
	id := []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
	binary, err := filepath.Abs(Binary)
	v.must(err)
	v.Process, err = os.StartProcess(binary, []string{"vmx", "--uuid", "test", "--name", "test"}, &os.ProcAttr{
		Dir: "/", Env: spec.Environment(), Files: files,
		Sys: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID |
				unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
			UidMappings: id, GidMappings: id, GidMappingsEnableSetgroups: true,
			Credential: &syscall.Credential{Groups: []uint32{}},
		},
	})
	v.must(err)
	for _, f := range files[1:] {
		f.Close()
	}
	go v.log.read(logOut)
	go func() {
		v.state, _ = v.Process.Wait()
		close(v.exited)
	}()
}

func (v *VMX) listen(name string, kind int) *os.File {
	fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	v.must(err)
	os.Remove(v.path(name))
	v.must(unix.Bind(fd, &unix.SockaddrUnix{Name: v.path(name)}))
	v.must(unix.Listen(fd, 16))
	return os.NewFile(uintptr(fd), name)
}

// Dial makes a new control connection, as a restarted vmctld does.
func (v *VMX) Dial() *ctl.Client {
	v.t.Helper()
	var c *ctl.Client
	var dialed sync.WaitGroup
	made := make(chan struct{})
	c, err := ctl.Dial(v.path("ctl.sock"), func(m ctl.Message) {
		if d, ok := m.(*ctl.VsockDial); ok {
			dialed.Go(func() {
				<-made
				v.dialVsock(c, d)
			})
			return
		}
		select {
		case v.Events <- m:
		default:
		}
	})
	close(made)
	v.must(err)
	v.t.Cleanup(func() {
		c.Close()
		dialed.Wait()
	})
	v.Client = c
	return c
}

// Config is a VM and what it boots. What is not set is chosen.
type Config struct {
	VCPUs    uint32
	Memory   uint64
	Cmdline  string
	OnReset  spec.Policy
	Kernel   string
	Initrd   string // "-": none
	Firmware string // boots instead of a kernel
	Console  spec.Console
	Disks    []Disk
	NICs     []NIC
	Saved    *Saved // to go on from; nil: power-on
	CID      uint32 // 0: no sockets; see Vsock
}

// Saved is what a machine was saved to.
type Saved struct{ State, Memory *os.File }

// NIC is a network card; see Tap.
type NIC struct {
	Tap, Vhost *os.File // Vhost may be nil
	MAC        [6]byte
}

// Disk is a file that the VM has as a disk; without a path, one that was never
// attached.
type Disk struct {
	None     bool // there is none of its number
	Path     string
	ReadOnly bool
	ID       string
	Format   spec.Format
	Backing  []File
}

// File is a file behind that of a disk.
type File struct {
	Path   string
	Format spec.Format
	Own    bool // it may be merged into
}

// Spec is the spec of a Config with nothing set.
func Spec() spec.Spec { return Config{}.filled().spec() }

func (c Config) spec() spec.Spec {
	return spec.Spec{VCPUs: c.VCPUs, MemoryBytes: c.Memory, Cmdline: c.Cmdline, OnReset: c.OnReset, Console: c.Console, Firmware: c.Firmware != "", CID: c.CID}
}

func (c Config) filled() Config {
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	if c.Firmware != "" {
		c.Kernel, c.Initrd = c.Firmware, "-"
	} else {
		def(&c.Kernel, Kernel)
		def(&c.Initrd, Initrd)
		def(&c.Cmdline, "console=ttyS0 panic=-1 quiet")
	}
	if c.VCPUs == 0 {
		c.VCPUs = 1
	}
	if c.Memory == 0 {
		c.Memory = 256 << 20
	}
	if c.OnReset == 0 {
		c.OnReset = spec.Restart
	}
	return c
}

// Configure makes the VM and hands it over. The error is the monitor's.
func (v *VMX) Configure(c Config) error {
	v.t.Helper()
	c = c.filled()
	dev, err := abi.OpenDevice(abi.DevicePath)
	v.must(err)
	defer dev.Close()
	var uuid [abi.UUIDLen]byte
	rand.Read(uuid[:])
	v.VM, v.ID, err = dev.Create(uuid, "test")
	v.must(err)
	s := c.spec()
	for _, d := range c.Disks {
		s.Disks = append(s.Disks, v.AttachDisk(d))
	}
	for _, n := range c.NICs {
		s.NICs = append(s.NICs, v.AttachNIC(n))
	}
	run, err := v.VM.Delegate(abi.RightRun | abi.RightObserve)
	v.must(err)
	defer run.Close()
	kernel, err := os.Open(c.Kernel)
	v.must(err)
	defer kernel.Close()
	initrd := -1
	if c.Initrd != "-" {
		f, err := os.Open(c.Initrd)
		v.must(err)
		defer f.Close()
		initrd = int(f.Fd())
	}
	vsock := -1
	if c.CID != 0 {
		f := v.listenVsock()
		defer f.Close()
		vsock = int(f.Fd())
	}
	if f := c.Saved; f != nil {
		return v.Client.Restore(v.Context(), s, run.FD(), int(f.State.Fd()), int(f.Memory.Fd()), int(kernel.Fd()), initrd, vsock)
	}
	return v.Client.Configure(v.Context(), s, run.FD(), int(kernel.Fd()), initrd, vsock)
}

// AttachDisk gives the VM a disk.
func (v *VMX) AttachDisk(d Disk) spec.Disk {
	v.t.Helper()
	if d.None {
		return spec.Disk{}
	}
	if d.Path == "" {
		return spec.Disk{Backend: 1 << 31}
	}
	flags := os.O_RDWR
	if d.ReadOnly {
		flags = os.O_RDONLY
	}
	f, err := os.OpenFile(d.Path, flags, 0)
	v.must(err)
	defer f.Close()
	s := spec.Disk{ReadOnly: d.ReadOnly, ID: d.ID, Format: d.Format}
	parts := []abi.Part{{FD: int(f.Fd()), Role: abi.RoleData}}
	for _, b := range d.Backing {
		s.Backing = append(s.Backing, b.Format)
		if b.Own {
			s.Own = append(s.Own, v.AttachFile(b.Path))
			continue
		}
		f, err := os.Open(b.Path)
		v.must(err)
		defer f.Close()
		parts = append(parts, abi.Part{FD: int(f.Fd()), Role: abi.RoleBase})
	}
	s.Backend, err = v.VM.AttachDisk(parts...)
	v.must(err)
	return s
}

// AttachFile gives the VM a file to write to, and returns the number of its backend.
func (v *VMX) AttachFile(path string) uint32 {
	v.t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	v.must(err)
	defer f.Close()
	n, err := v.VM.AttachDisk(abi.Part{FD: int(f.Fd()), Role: abi.RoleData})
	v.must(err)
	return n
}

// AttachNIC gives the VM a network card, and closes its files here.
func (v *VMX) AttachNIC(n NIC) spec.NIC {
	v.t.Helper()
	parts := []abi.Part{{FD: int(n.Tap.Fd()), Role: abi.RoleTap}}
	if n.Vhost != nil {
		parts = append(parts, abi.Part{FD: int(n.Vhost.Fd()), Role: abi.RoleVhost})
	}
	number, err := v.VM.AttachNIC(parts...)
	v.must(err)
	for _, f := range []*os.File{n.Tap, n.Vhost} {
		if f != nil {
			f.Close()
		}
	}
	return spec.NIC{Backend: number, MAC: n.MAC}
}

// Boot configures and starts, with a console on it that it returns.
func Boot(t testing.TB, c Config) (*VMX, *Screen) {
	t.Helper()
	v := Start(t)
	s := v.View("writer", ctl.ReadWrite)
	v.must(v.Configure(c))
	v.must(v.Client.Start(v.Context()))
	return v, s
}

// Grant makes a console token.
func (v *VMX) Grant(user string, mode ctl.Mode, life time.Duration) []byte {
	v.t.Helper()
	token := make([]byte, 32)
	rand.Read(token)
	v.must(v.Client.ConsoleGrant(v.Context(), ctl.ConsoleGrant{
		TokenHash: sha256.Sum256(token), Session: "of " + user, User: user,
		ExpiresUnix: time.Now().Add(life).UnixMilli(), Mode: mode,
	}))
	return token
}

// View attaches a viewer with a token of its own.
func (v *VMX) View(user string, mode ctl.Mode) *Screen {
	v.t.Helper()
	s, err := v.Attach(v.Grant(user, mode, time.Minute), user, 0)
	v.must(err)
	return s
}

// Wait waits for the monitor's end and returns its exit status.
func (v *VMX) Wait() abi.Reason {
	v.t.Helper()
	select {
	case <-v.exited:
	case <-time.After(Timeout):
		v.t.Fatalf("vmx does not end; it says:\n%s", v.log)
	}
	if !v.state.Exited() {
		return abi.ReasonMonitorGone
	}
	return abi.Reason(v.state.ExitCode())
}

// Event waits for an event of a type, of which the last may be on its way when vmx ends.
func Event[M ctl.Message](v *VMX) M {
	v.t.Helper()
	exited, late := v.exited, time.After(Timeout)
	for {
		select {
		case m := <-v.Events:
			if e, ok := m.(M); ok {
				return e
			}
		case <-exited:
			exited, late = nil, time.After(10*time.Second)
		case <-late:
			v.t.Fatalf("no such event; vmx says:\n%s", v.log)
		}
	}
}

// Info is what the kernel knows about the VM.
func (v *VMX) Info() abi.VMInfo {
	v.t.Helper()
	info, err := v.VM.Info()
	v.must(err)
	return info
}

func (v *VMX) cleanup() {
	v.Process.Kill()
	<-v.exited
	if v.VM != nil {
		if err := v.VM.Destroy(); err != nil && !errors.Is(err, unix.ESHUTDOWN) && !errors.Is(err, unix.EINTR) {
			v.t.Error(err)
		}
		v.VM.Close()
	}
	if v.t.Failed() {
		v.t.Logf("vmx ended with %v and says:\n%s", v.state, v.log)
		for len(v.Events) > 0 {
			m := <-v.Events
			v.t.Logf("it told %T%+v", m, m)
		}
	}
}

// logBuffer keeps the first 64 KiB of a log.
type logBuffer struct {
	mu   sync.Mutex
	text []byte
}

func (l *logBuffer) read(from *os.File) {
	defer from.Close()
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		l.mu.Lock()
		l.text = append(l.text, buf[:min(n, 64<<10-len(l.text))]...)
		l.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}
