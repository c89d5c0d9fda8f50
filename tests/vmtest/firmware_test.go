// SPDX-License-Identifier: Apache-2.0

//go:build lab

package vmtest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"vmctl/abi"
	"vmctl/monitor/spec"
	"vmctl/tests/vmtest"
)

// seaBIOS is Debian's.
const seaBIOS = "/usr/share/seabios/bios-256k.bin"

// bootSector prints the text in the second sector of the disk it is on, by the BIOS'
// calls, waits for a key, and powers the machine off.
var bootSector = []byte{
	0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, // xor ax,ax; mov ds,ax; mov es,ax
	0xb8, 0x01, 0x02, 0xb9, 0x02, 0x00, 0xb6, 0x00, // mov ax,0201h; mov cx,2; mov dh,0
	0xbb, 0x00, 0x80, 0xcd, 0x13, // mov bx,8000h; int 13h: read a sector
	0xbe, 0x00, 0x80, 0xfc, // mov si,8000h; cld
	0xac, 0x84, 0xc0, 0x74, 0x09, // next: lodsb; test al,al; jz off
	0xb4, 0x0e, 0xbb, 0x07, 0x00, 0xcd, 0x10, 0xeb, 0xf2, // mov ah,0eh; mov bx,7; int 10h; jmp next
	0xb4, 0x00, 0xcd, 0x16, // off: mov ah,0; int 16h
	0xba, 0x00, 0x06, 0xb0, 0x34, 0xee, // mov dx,600h; mov al,34h; out dx,al
	0xf4, 0xeb, 0xfd, // hlt
}

// newBootDisk makes a disk that says something when a BIOS boots it.
func newBootDisk(t *testing.T, says string) string {
	t.Helper()
	const sector = 512
	b := make([]byte, 4<<20) // has cylinders, as the BIOS wants
	copy(b, bootSector)
	copy(b[sector-2:], []byte{0x55, 0xaa})
	copy(b[sector:], says)
	path := filepath.Join(t.TempDir(), "boot")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Firmware finds the disk by itself, with all processors started, and what it prints
// is on the console.
func TestFirmware(t *testing.T) {
	disk := newBootDisk(t, "\r\nthe second sector\r\n")
	v, s := vmtest.Boot(t, vmtest.Config{Firmware: seaBIOS, VCPUs: 2, Disks: []vmtest.Disk{{Path: disk}}})
	s.Expect("SeaBIOS (version")
	s.Expect("the second sector")
	s.Type(" ")
	end(t, v, abi.ReasonPoweroff)
}

// debian is the disk that the lab makes: tools/lab/guestdisk.go.
const debian = "build/guest/debian.img"

// bootDebian starts a VM with a copy of that disk, and logs in when it may.
func bootDebian(t *testing.T, c vmtest.Config) (*vmtest.VMX, *vmtest.Screen) {
	t.Helper()
	disk := filepath.Join(t.TempDir(), "debian")
	if out, err := exec.Command("cp", "--sparse=always", debian, disk).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c.Firmware, c.Memory = seaBIOS, 512<<20
	c.Disks = append([]vmtest.Disk{{Path: disk}}, c.Disks...)
	v, s := vmtest.Boot(t, c)
	began := time.Now()
	s.Expect("guest login:")
	t.Logf("login after %v", time.Since(began))
	s.Type("root\n")
	s.Expect("Password:")
	s.Type("vmctl\n")
	s.Expect("root@guest:~#")
	s.Run("PS1=; stty -echo; dmesg -n 1")
	return v, s
}

// A whole Debian boots from its disk, by nothing but the firmware, to a login on both
// consoles, and powers off when the button is pressed.
func TestDebian(t *testing.T) {
	v, s := bootDebian(t, vmtest.Config{Console: spec.Virtio})
	for _, c := range []struct{ what, command, want string }{
		{"console", "tty", "/dev/hvc0"},
		{"login on the other", "systemctl is-active serial-getty@ttyS0", "active"},
		{"system", "systemctl is-system-running --wait", "running"},
		{"virtualisation", "systemd-detect-virt", "kvm"},
		{"failed units", "systemctl --failed --no-legend", ""},
		{"random writes, read back", "fio --name=x --filename=/var/tmp/x --size=16m --rw=randwrite --bs=4k --verify=crc32c >/dev/null 2>&1 && echo same", "same"},
	} {
		if got := s.Run(c.command); got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
	now, err := strconv.ParseInt(s.Run("date +%s"), 10, 64)
	if off := time.Since(time.Unix(now, 0)); err != nil || off.Abs() > 3*time.Second {
		t.Errorf("the guest's clock is %v behind: %v", off, err)
	}
	began := time.Now()
	if err := v.Client.PowerButton(v.Context()); err != nil {
		t.Fatal(err)
	}
	end(t, v, abi.ReasonPoweroff)
	t.Logf("off %v after the button", time.Since(began))
}
