// SPDX-License-Identifier: Apache-2.0

//go:build lab

package vmtest_test

import (
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/abi"
	"vmctl/monitor/ctl"
	"vmctl/monitor/spec"
	"vmctl/tests/vmtest"
)

var guestMAC = [6]byte{0x52, 0x54, 0, 1, 2, 3}

const (
	hostAddr  = "192.168.77.1"
	guestAddr = "192.168.77.2"
	streamed  = 8 << 20 // bytes
)

// newTap makes a tap with an address, as the daemon does; it goes with its last file.
func newTap(t *testing.T) *os.File {
	t.Helper()
	f := openTap(t)
	for _, args := range [][]string{{"addr", "add", hostAddr + "/24", "dev", "vmtest"}, {"link", "set", "vmtest", "up"}} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v\n%s", args, err, out)
		}
	}
	return f
}

// keepTap keeps what newTap made when its files are closed, until the test ends.
func keepTap(t *testing.T, f *os.File) {
	t.Helper()
	if err := unix.IoctlSetInt(int(f.Fd()), unix.TUNSETPERSIST, 1); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("ip", "link", "del", "vmtest").CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
}

// openTap opens the tap, which is made when there is none. It has one file at a time:
// that of a VM which ended is closed in a while.
func openTap(t *testing.T) *os.File {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "tap")
	ifr, err := unix.NewIfreq("vmtest")
	if err != nil {
		t.Fatal(err)
	}
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EBUSY) || time.Since(began) > vmtest.Timeout {
			t.Fatal(err)
		}
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, 12); err != nil {
		t.Fatal(err)
	}
	return f
}

// A stock guest's own driver reaches the host by a network card, with the host's
// vhost and without: small packets, and streams in both directions that use all
// offloads there are.
func TestNetwork(t *testing.T) {
	for _, vhost := range []bool{true, false} {
		t.Run(map[bool]string{true: "vhost", false: "own"}[vhost], func(t *testing.T) { testNetwork(t, vhost) })
	}
}

func testNetwork(t *testing.T, vhost bool) {
	nic := vmtest.NIC{Tap: newTap(t), MAC: guestMAC}
	if vhost {
		var err error
		if nic.Vhost, err = os.OpenFile("/dev/vhost-net", os.O_RDWR, 0); err != nil {
			t.Fatal(err)
		}
	}
	v, s := boot(t, vmtest.Config{
		Initrd: withDrivers, Cmdline: "console=hvc0 panic=-1 quiet", Console: spec.Virtio, NICs: []vmtest.NIC{nic},
	})
	if got := s.Run("cat /sys/class/net/eth0/address; ip link set eth0 up; ip addr add " + guestAddr + "/24 dev eth0"); got != "52:54:00:01:02:03" {
		t.Fatalf("the guest has %q", got)
	}
	if got := s.Run("ping -c 3 -W 10 " + hostAddr + " | grep -c 'bytes from'"); got != "3" {
		t.Fatalf("%s of 3 pings came back", got)
	}
	before := exits(t, v, "mmio_exits") + exits(t, v, "io_exits")
	const pings = 100
	ping := func(n int) int {
		calls := readsAndWrites(t, v)
		s.Run(fmt.Sprintf("ping -c %03d -i 0.02 -W 10 %s >/tmp/pings", n, hostAddr))
		return readsAndWrites(t, v) - calls
	}
	few, many := ping(1), ping(pings)
	if n := exits(t, v, "mmio_exits") + exits(t, v, "io_exits") - before; n != 0 {
		t.Errorf("%d pings made %d exits to the monitor", pings, n)
	}
	// All that it does with a vhost is what the console needs.
	if t.Logf("%d reads and writes of the monitor for one ping, %d for %d", few, many, pings); vhost == (many-few >= pings) {
		t.Errorf("%d pings made %d reads and writes of the monitor", pings, many-few)
	}
	t.Run("to the guest", func(t *testing.T) { testStream(t, s, true) })
	t.Run("from the guest", func(t *testing.T) { testStream(t, s, false) })
	t.Run("jail", func(t *testing.T) { testJail(t, v) })

	// A reset leaves the card as it was at power-on.
	s.Type("reboot -f\n")
	vmtest.Event[*ctl.GuestReset](v)
	s.Expect(prompt)
	s.Run("ip link set eth0 up; ip addr add " + guestAddr + "/24 dev eth0")
	if got := s.Run("ping -c 3 -W 10 " + hostAddr + " | grep -c 'bytes from'"); got != "3" {
		t.Errorf("after a reset %s of 3 pings came back", got)
	}
	s.Type("poweroff -f\n")
	end(t, v, abi.ReasonPoweroff)
	gone := func() bool { _, err := net.InterfaceByName("vmtest"); return err != nil }
	for deadline := time.Now().Add(vmtest.Timeout); !gone(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the tap is still there")
		}
	}
}

// readsAndWrites is how often a monitor called the kernel for that.
func readsAndWrites(t *testing.T, v *vmtest.VMX) (n int) {
	t.Helper()
	found := 0
	for line := range strings.Lines(proc(t, v, "io")) {
		if name, value, _ := strings.Cut(strings.TrimSpace(line), ": "); name == "syscr" || name == "syscw" {
			v, err := strconv.Atoi(value)
			if err != nil {
				t.Fatal(err)
			}
			n += v
			found++
		}
	}
	if found != 2 {
		t.Fatal("the kernel does not count them")
	}
	return n
}

// testStream sends a stream over TCP; both ends must have the same sum.
func testStream(t *testing.T, s *vmtest.Screen, toGuest bool) {
	l, err := net.Listen("tcp", hostAddr+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sum := make(chan string, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			sum <- err.Error()
			return
		}
		defer c.Close()
		h := md5.New()
		if toGuest {
			_, err = io.Copy(io.MultiWriter(c, h), io.LimitReader(rand.NewChaCha8([32]byte{7}), streamed))
		} else {
			_, err = io.Copy(h, c)
		}
		if err != nil {
			sum <- err.Error()
			return
		}
		sum <- fmt.Sprintf("%x", h.Sum(nil))
	}()
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	var got string
	if toGuest {
		got = s.Run("nc " + hostAddr + " " + port + " </dev/null | md5sum | cut -c1-32")
	} else {
		got = s.Run("head -c " + strconv.Itoa(streamed) + " /dev/urandom >/tmp/s; nc " + hostAddr + " " + port + " </tmp/s; md5sum </tmp/s | cut -c1-32")
	}
	if want := <-sum; strings.TrimSpace(got) != want {
		t.Errorf("the guest has %q, the host %q", got, want)
	}
}
