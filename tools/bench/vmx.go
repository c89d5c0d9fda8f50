// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/abi"
	"vmctl/monitor/console/proto"
	"vmctl/monitor/ctl"
	"vmctl/monitor/spec"
)

// monitorUID is the user of the measured monitors, which is nobody else's.
const monitorUID = 250000

// vmx is a running monitor, started as vmctld does.
type vmx struct {
	process  *os.Process
	vm       *abi.VM
	client   *ctl.Client
	consoles string // path of the socket
}

// bootVMX returns the seconds from the start of vmx to the guest's init, and the
// bytes that vmx holds for itself when the guest is idle.
func bootVMX(ctx context.Context, program string, img images) (seconds, private float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, bootTime)
	defer cancel()
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(dir)
	img, remove, err := img.fresh()
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	start := time.Now()
	m, err := startVMX(program, dir)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, m.end()) }()
	// A console attaches before power-on.
	line, err := m.console(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("console: %w", err)
	}
	defer line.Close()
	if err := m.powerOn(ctx, img); err != nil {
		return 0, 0, err
	}
	if err := waitMarker(line, img.marker()); err != nil {
		return 0, 0, err
	}
	seconds = time.Since(start).Seconds()
	select {
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	case <-time.After(idleTime): // the guest comes to rest
	}
	bytes, err := privateMemory(m.process.Pid, guestMemory<<20)
	return seconds, float64(bytes), err
}

// startVMX starts the monitor with the descriptors that it expects: log, control
// socket, console socket, scrollback.
func startVMX(program, dir string) (*vmx, error) {
	m := &vmx{consoles: filepath.Join(dir, "console.sock")}
	control := filepath.Join(dir, "ctl.sock")
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	files := []*os.File{null, null, os.Stderr}
	defer func() {
		for _, f := range files[3:] {
			f.Close() // the monitor has its own
		}
		null.Close()
	}()
	for _, s := range []struct {
		path string
		kind int
	}{{control, unix.SOCK_SEQPACKET}, {m.consoles, unix.SOCK_STREAM}} {
		f, err := listen(s.path, s.kind)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	scroll, err := os.OpenFile(filepath.Join(dir, "console.log"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	files = append(files, scroll)
	m.process, err = os.StartProcess(program, []string{"vmx", "--uuid", "00000000-0000-4000-8000-0000000000be", "--name", "bench"},
		&os.ProcAttr{Dir: "/", Env: spec.Environment(), Files: files, Sys: confined()})
	if err != nil {
		return nil, err
	}
	if m.client, err = ctl.Dial(control, func(ctl.Message) {}); err != nil {
		return nil, errors.Join(err, m.end())
	}
	return m, nil
}

// confined gives the monitor the namespaces and the user of its own that vmctld
// gives it.
func confined() *syscall.SysProcAttr {
	id := []syscall.SysProcIDMap{{ContainerID: 0, HostID: monitorUID, Size: 1}}
	return &syscall.SysProcAttr{
		Setsid: true,
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID |
			unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP,
		UidMappings: id, GidMappings: id, GidMappingsEnableSetgroups: true,
		Credential: &syscall.Credential{Groups: []uint32{}},
		Pdeathsig:  syscall.SIGKILL,
	}
}

func listen(path string, kind int) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), path)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 4)); err != nil {
		return nil, errors.Join(fmt.Errorf("listen %s: %w", path, err), f.Close())
	}
	return f, nil
}

// powerOn hands over the VM and what it boots, and lets it run.
func (m *vmx) powerOn(ctx context.Context, img images) error {
	d, err := abi.OpenDevice(abi.DevicePath)
	if err != nil {
		return err
	}
	defer d.Close()
	var uuid [abi.UUIDLen]byte
	if _, err := rand.Read(uuid[:]); err != nil {
		return err
	}
	if m.vm, _, err = d.Create(uuid, "bench"); err != nil {
		return err
	}
	run, err := m.vm.Delegate(abi.RightRun | abi.RightObserve)
	if err != nil {
		return err
	}
	defer run.Close()
	s := spec.Spec{VCPUs: 1, MemoryBytes: guestMemory << 20, OnReset: spec.Stop}
	if disk := img.disk + img.data; disk != "" {
		if err := m.attach(disk, &s); err != nil {
			return err
		}
	}
	boots, initrd := img.kernel, -1
	if img.disk != "" {
		boots, s.Firmware = firmware, true
	} else {
		s.Cmdline = cmdline
		f, err := os.Open(img.initrd)
		if err != nil {
			return err
		}
		defer f.Close()
		initrd = int(f.Fd())
	}
	kernel, err := os.Open(boots)
	if err != nil {
		return err
	}
	defer kernel.Close()
	if err := m.client.Configure(ctx, s, run.FD(), int(kernel.Fd()), initrd, -1); err != nil {
		return fmt.Errorf("configure: %w", err)
	}
	if err := m.client.Start(ctx); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	return nil
}

// attach gives the VM a disk.
func (m *vmx) attach(path string, s *spec.Spec) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := m.vm.AttachDisk(abi.Part{FD: int(f.Fd()), Role: abi.RoleData})
	if err != nil {
		return err
	}
	s.Disks = []spec.Disk{{Backend: n}}
	return nil
}

// console attaches to the serial line with a token of its own.
func (m *vmx) console(ctx context.Context) (*serialLine, error) {
	token := make([]byte, 32)
	if _, err := rand.Read(token); err != nil {
		return nil, err
	}
	err := m.client.ConsoleGrant(ctx, ctl.ConsoleGrant{
		TokenHash: sha256.Sum256(token), Session: "bench", User: "unix:0",
		ExpiresUnix: time.Now().Add(time.Minute).UnixMilli(), Mode: ctl.ReadWrite,
	})
	if err != nil {
		return nil, err
	}
	conn, err := net.Dial("unix", m.consoles)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	client, _, err := proto.NewClient(conn, &proto.Hello{Token: token, Session: "bench", Address: "local"})
	if err := errors.Join(err, conn.SetDeadline(deadline)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &serialLine{Conn: conn, client: client}, nil
}

// end ends the monitor and its VM, whatever they are at.
func (m *vmx) end() error {
	var errs []error
	if m.client != nil {
		errs = append(errs, m.client.Close())
	}
	if m.vm != nil {
		errs = append(errs, m.vm.Destroy(), m.vm.Close())
	}
	// It may have ended by itself, now that its VM is gone.
	if err := m.process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		errs = append(errs, err)
	}
	_, err := m.process.Wait()
	return errors.Join(append(errs, err)...)
}

// serialLine is what a guest prints, read from a console.
type serialLine struct {
	net.Conn
	client *proto.Client
	rest   []byte
}

// Read returns what the guest printed.
func (s *serialLine) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		f, err := s.client.Next()
		if err != nil {
			return 0, err
		}
		printed := f.Payload
		if f.Type == proto.TypeHistory {
			if _, printed, err = proto.ParseHistory(f.Payload); err != nil {
				return 0, err
			}
		}
		if f.Type != proto.TypeViewers {
			s.rest = append(s.rest[:0], printed...)
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// Write types.
func (s *serialLine) Write(p []byte) (int, error) {
	if err := s.client.Type(p); err != nil {
		return 0, err
	}
	return len(p), nil
}
