// SPDX-License-Identifier: Apache-2.0

//go:build lab

package vmtest_test

import (
	"bytes"
	"crypto/md5"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"vmctl/abi"
	"vmctl/monitor/ctl"
	"vmctl/monitor/spec"
	"vmctl/tests/vmtest"
)

// withDrivers is the lab's initramfs with the drivers of virtio devices.
const withDrivers = "build/guest/virtio.img"

const diskSize = 32 << 20

// newDisk makes a file of random bytes.
func newDisk(t *testing.T, size int) (path string, content []byte) {
	t.Helper()
	content = make([]byte, size)
	r := rand.NewChaCha8([32]byte{byte(size >> 20)})
	if _, err := r.Read(content); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, content
}

func md5Of(b []byte) string { return fmt.Sprintf("%x", md5.Sum(b)) }

// pattern lets the guest make a MiB that it knows the sum of, and puts it on a disk.
const pattern = "head -c 1048576 /dev/urandom >/tmp/p && md5sum </tmp/p | cut -c1-32"

// A guest of a stock kernel with its own drivers finds the bus and what is on it,
// talks on hvc0, and its disks hold what it and the host wrote.
func TestDevices(t *testing.T) {
	path, content := newDisk(t, diskSize)
	second, fixed := newDisk(t, 1<<20)
	v, s := boot(t, vmtest.Config{
		Initrd: withDrivers, Cmdline: "console=hvc0 panic=-1 quiet", Console: spec.Virtio,
		Disks: []vmtest.Disk{{Path: path, ID: "a serial number"}, {Path: second, ReadOnly: true}},
	})
	want := func(what, command, want string) {
		t.Helper()
		if got := s.Run(command); got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	small(t, v, s, "with disks")
	want("bus", "cd /sys/bus/pci/devices; for d in *; do echo $d $(cat $d/vendor $d/device); done", strings.Join([]string{
		"0000:00:00.0 0x1b36 0x0008", "0000:00:01.0 0x1af4 0x1044", "0000:00:02.0 0x1af4 0x1043",
		"0000:00:03.0 0x1af4 0x1042", "0000:00:04.0 0x1af4 0x1042",
		"0000:00:05.0 0x1af4 0x1045",
	}, "\n"))
	want("entropy", "head -c 5000 /dev/hwrng | wc -c", "5000")
	want("serial number", "cat /sys/block/vda/serial", "a serial number")
	want("sizes", "cat /sys/block/vd[ab]/size /sys/block/vd[ab]/ro", "65536\n2048\n0\n1")
	want("read", "md5sum </dev/vda | cut -c1-32", md5Of(content))
	want("read-only", "dd if=/dev/zero of=/dev/vdb bs=4k count=1 2>/dev/null; md5sum </dev/vdb | cut -c1-32", md5Of(fixed))
	want("console", "tty", "/dev/hvc0")
	s.Resize(132, 43)
	want("size of the console", "sleep 1; stty size", "43 132")
	t.Run("no exits", func(t *testing.T) { testNoExits(t, v, s) })
	t.Run("balloon", func(t *testing.T) { testBalloon(t, v, s) })
	t.Run("jail", func(t *testing.T) { testJail(t, v) })
	t.Run("broken driver", func(t *testing.T) { testBrokenDriver(t, v, s) })

	sum := s.Run(pattern)
	s.Run("dd if=/tmp/p of=/dev/vda bs=64k seek=16 2>/dev/null; sync")
	// A reset leaves the devices as they were at power-on, and the disk as it is.
	s.Type("reboot -f\n")
	vmtest.Event[*ctl.GuestReset](v)
	s.Expect(prompt)
	want("after a reset", "dd if=/dev/vda bs=1M skip=1 count=1 2>/dev/null | md5sum | cut -c1-32", sum)
	last := s.Run(pattern)
	s.Run("dd if=/tmp/p of=/dev/vda bs=4k seek=7936 2>/dev/null; sync")
	want("discard", "blkdiscard -o 2097152 -l 1048576 /dev/vda; dd if=/dev/vda bs=1M skip=2 count=1 2>/dev/null | md5sum | cut -c1-32", md5Of(make([]byte, 1<<20)))
	s.Type("poweroff -f\n")
	end(t, v, abi.ReasonPoweroff)

	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[int]string{0: md5Of(content[:1<<20]), 1: sum, 2: md5Of(make([]byte, 1<<20)), 3: md5Of(content[3<<20:][:1<<20]), 31: last} {
		if got := md5Of(file[at<<20:][:1<<20]); got != want {
			t.Errorf("MiB %d of the file is %s, the guest has %s", at, got, want)
		}
	}
	if b, err := os.ReadFile(second); err != nil || !bytes.Equal(b, fixed) {
		t.Errorf("the disk that is only read differs: %v", err)
	}
}

// testBalloon shows that memory which the guest does not need any more is the host's
// again: what it freed, by its own report, and what it was told to give.
func testBalloon(t *testing.T, v *vmtest.VMX, s *vmtest.Screen) {
	const used, most = 96 << 20, 64 << 20
	until := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(vmtest.Timeout); !ok(); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("never: %s; the monitor has %d MiB", what, resident(t, v)>>20)
			}
		}
	}
	before := resident(t, v)
	s.Run("head -c " + strconv.Itoa(used) + " /dev/zero >/tmp/z")
	full := resident(t, v)
	if full < before+used/2 {
		t.Errorf("%d MiB of files in memory made the monitor grow from %d to %d MiB", used>>20, before>>20, full>>20)
	}
	s.Run("rm /tmp/z")
	until("what was freed is the host's", func() bool { return resident(t, v) < full-used/2 })
	balloon := func(target uint64) *ctl.BalloonReply {
		t.Helper()
		r, err := v.Client.Balloon(v.Context(), target)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := balloon(ctl.KeepTarget); r.Target != 0 || r.Actual != 0 {
		t.Errorf("at first: %+v", r)
	}
	told := func() ctl.GuestMemory { return balloon(ctl.KeepTarget).Memory }
	until("the guest tells of its memory", func() bool { return told().Total != 0 })
	if m := told(); m.Total < 150<<20 || m.Total > 256<<20 || m.Free == 0 || m.Free > m.Total || m.Available > m.Total {
		t.Errorf("the guest tells %+v", m)
	}
	free := func() int {
		n, err := strconv.Atoi(s.Run("awk '/MemFree/ {print $2}' /proc/meminfo"))
		if err != nil {
			t.Fatal(err)
		}
		return n << 10
	}
	had := free()
	balloon(most)
	until("the balloon has its target", func() bool { return balloon(ctl.KeepTarget).Actual == most })
	if has := free(); has > had-most/2 {
		t.Errorf("with %d MiB in the balloon the guest has %d MiB free, and had %d", most>>20, has>>20, had>>20)
	}
	balloon(0)
	until("the balloon is empty", func() bool { return balloon(ctl.KeepTarget).Actual == 0 })
	if has := free(); has < had-most/2 {
		t.Errorf("with an empty balloon the guest has %d MiB free, and had %d", has>>20, had>>20)
	}
}

// resident is how much memory the host has given the monitor and its guest, in bytes.
func resident(t *testing.T, v *vmtest.VMX) int {
	t.Helper()
	fields := strings.Fields(proc(t, v, "statm"))
	n, err := strconv.Atoi(fields[1])
	if err != nil {
		t.Fatal(err)
	}
	return n * os.Getpagesize()
}

// testNoExits shows that a disk and a console at work cost no exit to the monitor:
// KVM counts those for memory where there is none and for ports, and the guest its
// interrupts.
func testNoExits(t *testing.T, v *vmtest.VMX, s *vmtest.Screen) {
	const count = 300
	interrupts := func() int {
		n, err := strconv.Atoi(s.Run("grep virtio2-req /proc/interrupts | awk '{n+=$2} END {print n}'"))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := interrupts()
	memory, ports := exits(t, v, "mmio_exits"), exits(t, v, "io_exits")
	s.Run("dd if=/dev/vda of=/dev/null bs=4k count=" + strconv.Itoa(count) + " iflag=direct 2>/dev/null")
	if got := s.Run("seq 1000 | wc -c; seq 1000 | tail -n 1"); got != "3893\n1000" {
		t.Errorf("the guest counts %q", got)
	}
	s.Run("seq 1000")
	memory, ports = exits(t, v, "mmio_exits")-memory, exits(t, v, "io_exits")-ports
	if memory != 0 || ports != 0 {
		t.Errorf("%d requests and 4 KiB of text made %d exits for memory and %d for ports", count, memory, ports)
	}
	if n := interrupts() - before; n < count {
		t.Errorf("%d requests made %d interrupts", count, n)
	}
}

// testBrokenDriver drives the entropy device by hand, with a queue outside of
// memory: the device needs a reset, its owner is told, and the kernel's driver gets
// it to work again. All else goes on.
func testBrokenDriver(t *testing.T, v *vmtest.VMX, s *vmtest.Screen) {
	const bound = "0000:00:01.0 >/sys/bus/pci/drivers/virtio-pci/"
	poke := []string{"echo " + bound + "unbind", "r() { devmem $((0xc0100000 + $1)) $2 $3; }"}
	for _, w := range []string{
		"20 8 0", "20 8 3", "8 32 1", "12 32 1", "20 8 11", // virtio 1 and no other feature
		"22 16 0", "32 32 0", "36 32 0x7fff", "40 32 0x1000", "44 32 0", "48 32 0x2000", "52 32 0", "28 16 1",
		"20 8 15",
	} {
		poke = append(poke, "r "+w)
	}
	s.Run(strings.Join(poke, "; "))
	if got := s.Run("r 20 8"); got != "0x4F" {
		t.Errorf("the status is %s", got)
	}
	if e := vmtest.Event[*ctl.DeviceBroken](v); e.Device != "rng" || e.Text == "" {
		t.Errorf("event %+v", e)
	}
	s.Run("echo " + bound + "bind")
	if got := s.Run("head -c 500 /dev/hwrng | wc -c"); got != "500" {
		t.Errorf("%s bytes after the driver is back", got)
	}
}

// Where the host refuses rings a disk works by system calls.
func TestDiskWithoutRings(t *testing.T) {
	const off = "/proc/sys/kernel/io_uring_disabled"
	if err := os.WriteFile(off, []byte("2"), 0); err != nil {
		t.Skip(err) // a kernel before it could be switched off
	}
	defer os.WriteFile(off, []byte("0"), 0)
	path, content := newDisk(t, 1<<20)
	v, s := boot(t, vmtest.Config{Initrd: withDrivers, Disks: []vmtest.Disk{{Path: path}}})
	if hasRing(t, v) {
		t.Error("the monitor has a ring")
	}
	if got := s.Run("md5sum </dev/vda | cut -c1-32"); got != md5Of(content) {
		t.Errorf("read: %s", got)
	}
	sum := s.Run(pattern)
	s.Run("cat /tmp/p >/dev/vda; sync")
	s.Type("poweroff -f\n")
	end(t, v, abi.ReasonPoweroff)
	if b, err := os.ReadFile(path); err != nil || md5Of(b) != sum {
		t.Errorf("the file is not what the guest wrote: %v", err)
	}
}

func hasRing(t *testing.T, v *vmtest.VMX) bool {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd/", v.Process.Pid)
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if target, _ := os.Readlink(dir + f.Name()); strings.Contains(target, "io_uring") {
			return true
		}
	}
	return false
}

// exits is how often the first vCPU left for its monitor, by KVM's name for why.
func exits(t *testing.T, v *vmtest.VMX, why string) int {
	t.Helper()
	blob, err := v.VM.KVMStats(0)
	if err != nil {
		t.Fatal(err)
	}
	var h abi.KVMStatsHeader
	if _, err := binary.Decode(blob, binary.LittleEndian, &h); err != nil {
		t.Fatal(err)
	}
	const head = 16 // of a descriptor, before its name
	for i := range h.NumDesc {
		d := blob[h.DescOffset+i*(head+h.NameSize):][:head+h.NameSize]
		if name, _, _ := bytes.Cut(d[head:], []byte{0}); string(name) == why {
			at := h.DataOffset + binary.LittleEndian.Uint32(d[8:])
			return int(binary.LittleEndian.Uint64(blob[at:]))
		}
	}
	t.Fatalf("KVM does not count %s", why)
	return 0
}
