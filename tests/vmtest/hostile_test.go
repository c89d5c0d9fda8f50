// SPDX-License-Identifier: Apache-2.0

//go:build lab

package vmtest_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"vmctl/abi"
	"vmctl/monitor/ctl"
	"vmctl/monitor/spec"
	"vmctl/tests/vmtest"
)

// privateHostile is what a monitor may hold after any guest: a MiB more than beside one
// that boots and is idle.
const privateHostile = privateBudget + 1<<10

// lair is a machine that boots a hostile guest, and then another.
type lair struct {
	config  vmtest.Config
	devices []prey
	put     func(seed uint64)      // what boots next is a hostile guest
	normal  func()                 // what boots next is a normal guest
	works   func(s *vmtest.Screen) // that guest does
}

// copyOf is a file of the test's own with that content.
func copyOf(t *testing.T, content []byte) (path string, write func(at int, b []byte)) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "copy")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return path, func(at int, b []byte) {
		t.Helper()
		if _, err := f.WriteAt(b, int64(at)); err != nil {
			t.Fatal(err)
		}
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// kernelLair boots a kernel whose first instructions go to a program behind the initramfs.
func kernelLair(t *testing.T, disk, fixed string) lair {
	const pageSize, room, setupSects, sector, entry, ramdisk = 4096, 48 << 10, 0x1f1, 512, 0x200, 0x218
	original, initrd := read(t, vmtest.Kernel), read(t, withDrivers)
	begin := (len(initrd) + pageSize - 1) &^ (pageSize - 1)
	kernel, writeKernel := copyOf(t, original)
	padded, writeInitrd := copyOf(t, append(initrd, make([]byte, begin+room+4*pageSize-len(initrd))...))
	at := (int(original[setupSects])+1)*sector + entry
	var jump code
	jump.word(ramdisk, 0x8b, 0x86) // mov eax, [rsi+ramdisk]
	jump.word(uint32(begin), 0x05) // add eax, begin
	jump.bytes(0xff, 0xe0)         // jmp rax
	writeKernel(at, jump)
	sum, devices := md5Of(read(t, fixed)), newPrey("rng", "console", "disk0", "disk1", "nic0", "balloon", "vsock")
	return lair{
		config: vmtest.Config{
			Kernel: kernel, Initrd: padded, Cmdline: "console=hvc0 panic=-1 quiet", Console: spec.Virtio, CID: 3,
			Disks: []vmtest.Disk{{Path: fixed, ReadOnly: true}, {Path: disk}},
			NICs:  []vmtest.NIC{{Tap: newTap(t), MAC: guestMAC}},
		},
		devices: devices,
		put:     func(seed uint64) { writeInitrd(begin, program(seed, devices, room, false)) },
		normal: func() {
			writeInitrd(begin, make([]byte, room))
			writeKernel(at, original[at:][:len(jump)])
		},
		works: func(s *vmtest.Screen) {
			s.Expect(prompt)
			if got := s.Run("md5sum </dev/vda | cut -c1-32; head -c 500 /dev/hwrng | wc -c"); got != sum+"\n500" {
				t.Errorf("the guest reads %q, want %s and 500", got, sum)
			}
			s.Run("head -c 65536 /dev/urandom >/tmp/p; dd if=/tmp/p of=/dev/vdb bs=64k oflag=direct 2>/dev/null")
			if got := s.Run("dd if=/dev/vdb bs=64k count=1 iflag=direct 2>/dev/null | cmp - /tmp/p && echo same"); got != "same" {
				t.Errorf("what the guest wrote is %q", got)
			}
			if got := s.Run("ip link set eth0 up; ip addr add " + guestAddr + "/24 dev eth0; ping -c 3 -W 20 " + hostAddr + " | grep -c 'bytes from'"); got != "3" {
				t.Errorf("%s of 3 pings came back", got)
			}
			s.Type("poweroff -f\n")
		},
	}
}

// firmwareLair boots firmware of its own on two processors, and has a vhost.
func firmwareLair(t *testing.T, disk, fixed string) lair {
	const (
		base, size, high         = 0xc0000, 256 << 10, 0x30000 // where F000 is
		begin, beginSecond, room = 0x6000, 0x16000, 48 << 10
		start, startSecond       = 0xfe00, 0xff00
		secondAt, reset          = secondPage << 12 & 0xffff, 0xfff0
	)
	bios := read(t, seaBIOS)
	if len(bios) != size {
		t.Fatalf("the firmware has %d bytes", len(bios))
	}
	rom := make([]byte, size)
	copy(rom, pageTables(base))
	copy(rom[high+start:], longMode(start, base, base+begin))
	copy(rom[high+startSecond:], longMode(startSecond, base, base+beginSecond))
	copy(rom[high+reset:], toBIOS(start))
	copy(rom[high+secondAt:], toBIOS(startSecond))
	path, write := copyOf(t, rom)
	card := newCard(t, newTap(t))
	devices := newPrey("rng", "disk0", "disk1", "nic0", "balloon", "vsock")
	return lair{
		config: vmtest.Config{
			Firmware: path, VCPUs: 2, CID: 3, NICs: []vmtest.NIC{card},
			Disks: []vmtest.Disk{{Path: fixed, ReadOnly: true}, {Path: disk}},
		},
		devices: devices,
		put: func(seed uint64) {
			write(begin, program(seed, devices, room, true))
			write(beginSecond, second(seed, devices, room))
		},
		normal: func() { write(0, bios) },
		works: func(s *vmtest.Screen) {
			s.Expect("the second sector")
			s.Type(" ")
		},
	}
}

// TestHostileGuest: a guest that follows no rule does no harm but to itself. It says all
// that it can to all devices, from seeds; meanwhile it is reset, and at last a normal
// guest boots in the same monitor and finds all at work.
func TestHostileGuest(t *testing.T) {
	const most = 1 << 20
	for _, c := range []struct {
		name  string
		seeds int
		lair  func(t *testing.T, disk, fixed string) lair
	}{
		{"kernel", 2, kernelLair},
		{"firmware", 2, firmwareLair},
	} {
		t.Run(c.name, func(t *testing.T) {
			// No number of a page of memory is in the text.
			disk := file(t, strings.Repeat("hostile guests\n", most/15), most)
			fixed := newBootDisk(t, "\r\nthe second sector\r\n")
			full, sum := md5Of(read(t, disk)), md5Of(read(t, fixed))
			l := c.lair(t, disk, fixed)
			l.put(0)
			v, s := vmtest.Boot(t, l.config)
			s.Expect(begins(0))
			for seed := range uint64(c.seeds * rounds(t, 1)) {
				began := time.Now()
				if seed > 0 {
					l.put(seed)
					again(t, v)
					s.Expect(begins(seed))
				}
				vmtest.Event[*ctl.DeviceBroken](v) // it is at it
				again(t, v)
				s.Expect(begins(seed))
				broken(t, v, s, seed, l.devices)
				memory := settled(t, v)
				t.Logf("seed %d: %v, %d KiB", seed, time.Since(began), memory)
				if memory > privateHostile {
					t.Errorf("seed %d: the monitor holds %d KiB; at most %d", seed, memory, privateHostile)
				}
				st, err := v.Client.Status(v.Context())
				if err != nil || st.State != ctl.Running {
					t.Errorf("seed %d: status %+v, %v", seed, st, err)
				}
				if info, err := os.Stat(disk); err != nil || info.Size() != most {
					t.Errorf("seed %d: the disk has grown: %v, %v", seed, info, err)
				}
			}
			if v.Log() != "" {
				t.Errorf("the monitor says %q", v.Log())
			}
			if got := md5Of(read(t, fixed)); got != sum {
				t.Error("the disk that is only read has changed")
			}
			if md5Of(read(t, disk)) == full {
				t.Error("no request was served")
			}
			l.normal()
			again(t, v)
			l.works(s)
			end(t, v, abi.ReasonPoweroff)
		})
	}
}

// again resets the guest.
func again(t *testing.T, v *vmtest.VMX) {
	t.Helper()
	if err := v.Client.Reset(v.Context()); err != nil {
		v.Fatal(err)
	}
	vmtest.Event[*ctl.GuestReset](v)
}

// broken waits for the end of a program: all devices read as broken, and the owner was
// told.
func broken(t *testing.T, v *vmtest.VMX, s *vmtest.Screen, seed uint64, devices []prey) {
	t.Helper()
	const broken = 0x4f
	s.Expect(fmt.Sprintf("hostile guest %d: ", seed))
	from := s.Seen()
	s.Expect(" ends")
	if got, want := s.Text[from:][:len(devices)], bytes.Repeat([]byte{broken}, len(devices)); !bytes.Equal(got, want) {
		t.Errorf("seed %d: the devices are %x", seed, got)
	}
	var names []string
	for _, d := range devices {
		names = append(names, d.name)
	}
	for len(names) > 0 {
		e := vmtest.Event[*ctl.DeviceBroken](v)
		i := slices.Index(names, e.Device)
		if i < 0 || e.Text == "" {
			t.Fatalf("seed %d: told of %+v, and not of %v", seed, e, names)
		}
		names = slices.Delete(names, i, i+1)
	}
}

// settled waits until the monitor of a guest that sleeps does nothing, and returns what
// it holds then.
func settled(t *testing.T, v *vmtest.VMX) (memory int) {
	t.Helper()
	const most = 3 // ticks a second, of a hundred
	ticks := func() (n int) {
		_, stat, _ := strings.Cut(proc(t, v, "stat"), ") ")
		for _, f := range strings.Fields(stat)[11:13] {
			v, err := strconv.Atoi(f)
			if err != nil {
				t.Fatal(err)
			}
			n += v
		}
		return n
	}
	deadline := time.Now().Add(time.Minute)
	for before := ticks(); ; {
		time.Sleep(time.Second)
		now := ticks()
		if now-before <= most {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the monitor of a guest that sleeps took %d ticks in a second", now-before)
		}
		before = now
	}
	memory, _ = private(t, v)
	return memory
}
