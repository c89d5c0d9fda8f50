// SPDX-License-Identifier: Apache-2.0

package acpi_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"vmctl/monitor/acpi"
)

var update = flag.Bool("update", false, "write the goldens anew")

func sum(b []byte) (s byte) {
	for _, v := range b {
		s += v
	}
	return s
}

func tables(t *testing.T, kind acpi.Kind, cpus uint32) *acpi.Tables {
	t.Helper()
	ts, err := acpi.New(kind, cpus, acpi.Base)
	if err != nil {
		t.Fatal(err)
	}
	return ts
}

func TestGoldens(t *testing.T) {
	ts, pc := tables(t, acpi.Reduced, 4), tables(t, acpi.PC, 4)
	for name, b := range map[string][]byte{
		"rsdp": ts.RSDP, "xsdt": ts.XSDT, "fadt": ts.FADT, "madt": ts.MADT, "mcfg": ts.MCFG, "dsdt": ts.DSDT,
		"facs-pc": pc.FACS, "fadt-pc": pc.FADT, "madt-pc": pc.MADT, "dsdt-pc": pc.DSDT,
	} {
		path := filepath.Join("testdata", name+".hex")
		if *update {
			if err := os.WriteFile(path, []byte(hex.Dump(b)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.Dump(b); got != string(want) {
			t.Errorf("%s is\n%swant\n%s", name, got, want)
		}
	}
}

func TestSumsAreZero(t *testing.T) {
	for _, kind := range []acpi.Kind{acpi.Reduced, acpi.PC} {
		ts := tables(t, kind, 64)
		if sum(ts.RSDP[:20]) != 0 || sum(ts.RSDP) != 0 {
			t.Error("RSDP")
		}
		for _, b := range [][]byte{ts.XSDT, ts.FADT, ts.MADT, ts.MCFG, ts.DSDT} {
			if sum(b) != 0 || int(binary.LittleEndian.Uint32(b[4:])) != len(b) {
				t.Errorf("%.4s: sum %d, length %d of %d", b, sum(b), binary.LittleEndian.Uint32(b[4:]), len(b))
			}
		}
	}
}

// A guest that follows the addresses from the RSDP on finds every table.
func TestTablesAreWhereTheyPoint(t *testing.T) {
	for _, kind := range []acpi.Kind{acpi.Reduced, acpi.PC} {
		ram := written(t, tables(t, kind, 254))
		at := func(b []byte) []byte { return ram[binary.LittleEndian.Uint64(b)-acpi.Base:] }
		xsdt := at(ram[24:])
		fadt, madt, mcfg := at(xsdt[36:]), at(xsdt[44:]), at(xsdt[52:])
		found := map[string][]byte{"XSDT": xsdt, "FACP": fadt, "APIC": madt, "MCFG": mcfg, "DSDT": at(fadt[140:])}
		if kind == acpi.PC {
			found["FACS"] = at(fadt[132:])
		}
		for want, b := range found {
			if string(b[:4]) != want {
				t.Errorf("found %.4s where %s should be", b, want)
			}
		}
		if mine := ram[tables(t, kind, 254).Generation-acpi.Base:]; len(mine) != 4096 || !bytes.Equal(mine, make([]byte, 4096)) {
			t.Errorf("%d bytes behind the tables, not a page that is free", len(mine))
		}
	}
}

// written is what memory holds from acpi.Base on.
func written(t *testing.T, ts *acpi.Tables) []byte {
	t.Helper()
	ram := make([]byte, acpi.Room)
	err := ts.Write(func(addr uint64, data []byte) error {
		if addr < acpi.Base || addr+uint64(len(data)) > acpi.Base+acpi.Room {
			t.Fatalf("%.4s lies at %#x", data, addr)
		}
		b := ram[addr-acpi.Base:][:len(data)]
		if !bytes.Equal(b, make([]byte, len(b))) {
			t.Fatalf("%.4s lies over another table", data)
		}
		copy(b, data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return ram
}

func TestNumberOfProcessors(t *testing.T) {
	for _, n := range []uint32{0, 255, 1 << 31} {
		if _, err := acpi.New(acpi.Reduced, n, acpi.Base); !errors.Is(err, acpi.ErrCPUs) {
			t.Errorf("%d processors: %v", n, err)
		}
	}
}

func TestWriteStopsAtTheFirstError(t *testing.T) {
	broken, calls := errors.New("broken"), 0
	err := tables(t, acpi.Reduced, 1).Write(func(uint64, []byte) error { calls++; return broken })
	if !errors.Is(err, broken) || calls != 1 {
		t.Errorf("%d calls, %v", calls, err)
	}
}
