// SPDX-License-Identifier: Apache-2.0

//go:build lab

package vmtest_test

import (
	"os"
	"path/filepath"
	"testing"

	"vmctl/abi"
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
