// SPDX-License-Identifier: Apache-2.0

//go:build lab

package vmtest_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/abi"
	"vmctl/monitor/ctl"
	"vmctl/monitor/spec"
	"vmctl/tests/vmtest"
)

// This binary is the guest's program too, as its busybox knows no such sockets: it
// comes on a disk.
const guestEnv = "VMTEST_VSOCK"

// inGuest runs it there. The runtime interrupts its threads to share processors, and
// to connect such a socket is not begun again after that.
const inGuest = "GODEBUG=asyncpreemptoff=1 " + guestEnv

const (
	guestCID  = 1234
	echoPort  = 1000 // of the guest's
	hostPort  = 77
	manyConns = 100
	longBytes = 4 << 20
	someBytes = 64 << 10
)

func TestMain(m *testing.M) {
	if words := strings.Fields(os.Getenv(guestEnv)); len(words) > 0 {
		if err := vsockGuest(words); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// vsockGuest is what runs in the guest: "echo PORT", or "call PORT CONNECTIONS BYTES".
func vsockGuest(words []string) error {
	var n []int
	for _, w := range words[1:] {
		v, err := strconv.Atoi(w)
		if err != nil {
			return err
		}
		n = append(n, v)
	}
	if words[0] == "echo" {
		return vsockEcho(n[0])
	}
	return inParallel(n[1], func(i int) error {
		fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		// The two seconds that Linux waits by itself are few in an emulated machine.
		const connectTimeout = 6 // SO_VM_SOCKETS_CONNECT_TIMEOUT_OLD of linux/vm_sockets.h
		if err := unix.SetsockoptTimeval(fd, unix.AF_VSOCK, connectTimeout, &unix.Timeval{Sec: 60}); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
		if err := unix.Connect(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_HOST, Port: uint32(n[0])}); err != nil {
			return os.NewSyscallError("connect", err)
		}
		return speak(i, n[2], sockFD(fd), func() error { return unix.Shutdown(fd, unix.SHUT_WR) })
	})
}

func vsockEcho(port int) error {
	l, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(l, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: uint32(port)}); err != nil {
		return err
	}
	if err := unix.Listen(l, 2*manyConns); err != nil {
		return err
	}
	fmt.Println("listening")
	for {
		fd, from, err := unix.Accept(l)
		if err != nil {
			return err
		}
		if vm, ok := from.(*unix.SockaddrVM); !ok || vm.CID != unix.VMADDR_CID_HOST {
			return fmt.Errorf("connection from %v", from)
		}
		go func() {
			defer unix.Close(fd)
			if _, err := io.Copy(sockFD(fd), sockFD(fd)); err == nil {
				unix.Shutdown(fd, unix.SHUT_WR)
			}
		}()
	}
}

// sockFD is a socket that blocks: the guest has threads enough.
type sockFD int

func (s sockFD) Read(p []byte) (int, error) {
	n, err := unix.Read(int(s), p)
	if n == 0 && err == nil {
		return 0, io.EOF
	}
	return max(n, 0), err
}

func (s sockFD) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var k int
		k, err = unix.Write(int(s), p[n:])
		n += max(k, 0)
	}
	return n, err
}

// speak sends bytes to an echo, ends its half, and wants the same back.
func speak(seed, size int, c io.ReadWriter, closeWrite func() error) error {
	want := make([]byte, size)
	rand.NewChaCha8([32]byte{byte(seed)}).Read(want)
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(want)
		sent <- errors.Join(err, closeWrite())
	}()
	got, err := io.ReadAll(c)
	if err := errors.Join(<-sent, err); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%d bytes came back of %d, or others", len(got), len(want))
	}
	return nil
}

func inParallel(n int, do func(i int) error) error {
	errs := make([]error, n)
	var work sync.WaitGroup
	for i := range n {
		work.Go(func() { errs[i] = do(i) })
	}
	work.Wait()
	return errors.Join(errs...)
}

// dialGuest connects to a port of the guest's, as any program on the host may. It
// returns nil if nobody listens there.
func dialGuest(t *testing.T, v *vmtest.VMX, port int) *net.UnixConn {
	t.Helper()
	c, err := net.Dial("unix", v.VsockSocket())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(vmtest.Timeout)); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(c, "CONNECT %d\n", port); err != nil {
		t.Fatal(err)
	}
	var line []byte
	for b := make([]byte, 1); !bytes.HasSuffix(line, []byte("\n")); line = append(line, b[0]) {
		if _, err := c.Read(b); err != nil && len(line) == 0 {
			return nil
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.HasPrefix(line, []byte("OK ")) {
		t.Fatalf("answer %q", line)
	}
	return c.(*net.UnixConn)
}

// A stock guest's own driver has sockets to the host and back: long streams and many
// at once, of which either side ends a half; and what dies on one side is over on the
// other.
func TestVsock(t *testing.T) {
	v, s := boot(t, vmtest.Config{
		Initrd: withDrivers, Cmdline: "console=hvc0 panic=-1 quiet", Console: spec.Virtio, CID: guestCID,
		Disks: []vmtest.Disk{{Path: programDisk(t), ReadOnly: true}},
	})
	begin := func() {
		t.Helper()
		s.Run("rm -f /tmp/g /tmp/out; cat /dev/vda >/tmp/g; chmod +x /tmp/g")
		s.Run(fmt.Sprintf("%s='echo %d' /tmp/g >/tmp/out 2>&1 & echo $! >/tmp/pid; until grep -qs listening /tmp/out; do sleep 0.1; done", inGuest, echoPort))
	}
	begin()
	t.Run("from the host", func(t *testing.T) { testVsockFromHost(t, v) })
	t.Run("from the guest", func(t *testing.T) { testVsockFromGuest(t, v, s) })
	t.Run("jail", func(t *testing.T) { testJail(t, v) })
	// As with viewers, what the runtime needed for a hundred at once is used again.
	const limit = privateBudget + 1024
	all, program := private(t, v)
	for deadline := time.Now().Add(time.Minute); all > limit && time.Now().Before(deadline); all, program = private(t, v) {
		s.Run("sleep 1") // what is garbage is given back a little later
	}
	t.Logf("with sockets that were used: %d KiB, of which %d KiB are the program", all, program)
	if all > limit {
		t.Errorf("with sockets that were used the monitor holds %d KiB, %d KiB of the program; at most %d", all, program, limit)
	}

	c := dialGuest(t, v, echoPort)
	s.Run("kill -9 $(cat /tmp/pid)")
	if n, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after the end of the guest's program: %d bytes, %v", n, err)
	}
	// The guest's kernel may close the connection before the socket that listens.
	for deadline := time.Now().Add(vmtest.Timeout); dialGuest(t, v, echoPort) != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("somebody listens after the end of the guest's program")
		}
	}

	begin()
	c = dialGuest(t, v, echoPort)
	s.Type("reboot -f\n")
	vmtest.Event[*ctl.GuestReset](v)
	if n, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after a reset of the guest: %d bytes, %v", n, err)
	}
	s.Expect(prompt)
	begin()
	c = dialGuest(t, v, echoPort)
	if err := speak(1, someBytes, c, c.CloseWrite); err != nil {
		t.Error("after a reset:", err)
	}
	c = dialGuest(t, v, echoPort)
	if err := v.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if got := v.Wait(); got != abi.ReasonMonitorGone {
		t.Errorf("ended as %v", got)
	}
	if n, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the end of the monitor: %d bytes, %v", n, err)
	}
}

// programDisk is a disk that begins with this binary.
func programDisk(t *testing.T) string {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.CreateTemp(t.TempDir(), "disk")
	if err != nil {
		t.Fatal(err)
	}
	const sector = 512
	if _, err := f.Write(append(self, make([]byte, -len(self)&(sector-1))...)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

func testVsockFromHost(t *testing.T, v *vmtest.VMX) {
	c := dialGuest(t, v, echoPort)
	before := exits(t, v, "mmio_exits") + exits(t, v, "io_exits")
	if err := speak(1, longBytes, c, c.CloseWrite); err != nil {
		t.Error(err)
	}
	if n := exits(t, v, "mmio_exits") + exits(t, v, "io_exits") - before; n != 0 {
		t.Errorf("a stream made %d exits to the monitor", n)
	}
	conns := make([]*net.UnixConn, manyConns)
	for i := range conns {
		if conns[i] = dialGuest(t, v, echoPort); conns[i] == nil {
			t.Fatalf("connection %d is refused", i)
		}
	}
	if err := inParallel(manyConns, func(i int) error { return speak(i, someBytes, conns[i], conns[i].CloseWrite) }); err != nil {
		t.Error(err)
	}
	if dialGuest(t, v, echoPort+1) != nil {
		t.Error("somebody listens where nobody does")
	}
}

func testVsockFromGuest(t *testing.T, v *vmtest.VMX, s *vmtest.Screen) {
	l, err := net.Listen("unix", v.VsockSocket()+"_"+strconv.Itoa(hostPort))
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer c.Close()
				if _, err := io.Copy(c, c); err == nil {
					c.(*net.UnixConn).CloseWrite()
				}
			})
		}
	})
	defer work.Wait()
	defer l.Close()
	call := func(port, conns, bytes int) string {
		t.Helper()
		return s.Run(fmt.Sprintf("%s='call %d %d %d' /tmp/g && echo fine", inGuest, port, conns, bytes))
	}
	if got := call(hostPort, 1, longBytes); got != "fine" {
		t.Errorf("a long stream: %s", got)
	}
	if got := call(hostPort, manyConns, someBytes); got != "fine" {
		t.Errorf("many: %.300s", got)
	}
	if got := call(hostPort+1, 1, 1); !strings.Contains(got, "connection reset") {
		t.Errorf("to nobody: %s", got)
	}
}
