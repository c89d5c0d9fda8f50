// SPDX-License-Identifier: Apache-2.0

package boot_test

import (
	"bytes"
	"errors"
	"testing"

	"vmctl/abi"
	"vmctl/monitor/boot"
	"vmctl/monitor/mem"
)

// bios is firmware of the smallest kind: a far jump where a processor begins.
func bios(size int) []byte {
	b := make([]byte, size)
	if size >= 16 {
		b[size-16] = 0xea
	}
	return b
}

func firmware(t *testing.T, rom []byte, memory uint64) (*mem.Memory, *boot.Firmware, error) {
	t.Helper()
	m, err := mem.New(memory)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	f, err := boot.ParseFirmware(bytes.NewReader(rom), int64(len(rom)), 2, m)
	return m, f, err
}

func TestBadFirmware(t *testing.T) {
	for name, rom := range map[string][]byte{
		"empty": nil, "small": bios(32 << 10), "large": bios(320 << 10), "odd": bios(100 << 10), "without a jump": make([]byte, 128<<10),
	} {
		if _, _, err := firmware(t, rom, 64<<20); !errors.Is(err, boot.ErrNotFirmware) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFirmware(t *testing.T) {
	rom := bios(128 << 10)
	copy(rom, "first bytes")
	m, f, err := firmware(t, rom, 5<<30)
	if err != nil {
		t.Fatal(err)
	}
	entry, err := f.Load(m)
	if err != nil {
		t.Fatal(err)
	}
	if got := at(t, m, 0xe0000, 11); string(got) != "first bytes" {
		t.Errorf("128 KiB below 1 MiB is %q", got)
	}
	s := abi.KVMSregs{Cr0: 0x60000010}
	entry.Set(&s)
	first := at(t, m, s.Cs.Base+entry.Regs.Rip, 1)
	if s.Cs.Selector != 0xf000 || first[0] != 0xea || s.Cr0 != 0x60000010 {
		t.Errorf("begins at %#x:%#x", s.Cs.Selector, entry.Regs.Rip)
	}
	files := map[string][]byte{}
	for _, file := range f.Config() {
		files[file.Name] = file.Data
	}
	// The tables lie behind the RAM that the firmware is told of.
	memory := files["etc/e820"]
	const entrySize, top = 20, 3<<30 - 64<<10
	if len(memory) != 4*entrySize || order.Uint64(memory[8:]) != top || order.Uint64(memory[3*entrySize:]) != 4<<30 {
		t.Errorf("memory map % x", memory)
	}
	root := files["etc/acpi/rsdp"]
	if xsdt := order.Uint64(root[24:]); xsdt < top || xsdt >= 3<<30 || string(at(t, m, xsdt, 4)) != "XSDT" {
		t.Errorf("root pointer % x", root)
	}
	if script := files["etc/table-loader"]; len(script) != 128 || script[0] != 1 || !bytes.HasPrefix(script[4:], []byte("etc/acpi/rsdp\x00")) {
		t.Errorf("script % x", script)
	}
	if port := files["etc/sercon-port"]; order.Uint16(port) != 0x3f8 {
		t.Errorf("console at % x", port)
	}
}

// A file that shrinks after it was looked at is told.
func TestFirmwareShrinks(t *testing.T) {
	m, err := mem.New(64 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	rom := &shrinking{bytes.NewReader(bios(128 << 10))}
	f, err := boot.ParseFirmware(rom, 128<<10, 1, m)
	if err != nil {
		t.Fatal(err)
	}
	rom.Reader = bytes.NewReader(bios(64 << 10))
	if _, err := f.Load(m); !errors.Is(err, boot.ErrCutKernel) {
		t.Error(err)
	}
}

type shrinking struct{ *bytes.Reader }
