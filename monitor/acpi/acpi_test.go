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

func tables(t *testing.T, cpus uint32) *acpi.Tables {
	t.Helper()
	ts, err := acpi.New(cpus, acpi.Base)
	if err != nil {
		t.Fatal(err)
	}
	return ts
}

func TestGoldens(t *testing.T) {
	ts := tables(t, 4)
	for name, b := range map[string][]byte{"rsdp": ts.RSDP, "xsdt": ts.XSDT, "fadt": ts.FADT, "madt": ts.MADT, "mcfg": ts.MCFG, "dsdt": ts.DSDT} {
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
	ts := tables(t, 64)
	if sum(ts.RSDP[:20]) != 0 || sum(ts.RSDP) != 0 {
		t.Error("RSDP")
	}
	for _, b := range [][]byte{ts.XSDT, ts.FADT, ts.MADT, ts.MCFG, ts.DSDT} {
		if sum(b) != 0 || int(binary.LittleEndian.Uint32(b[4:])) != len(b) {
			t.Errorf("%.4s: sum %d, length %d of %d", b, sum(b), binary.LittleEndian.Uint32(b[4:]), len(b))
		}
	}
}

// A guest that follows the addresses from the RSDP on finds every table.
func TestTablesAreWhereTheyPoint(t *testing.T) {
	ts := tables(t, 254)
	ram := make([]byte, acpi.End-acpi.Base)
	err := ts.Write(func(addr uint64, data []byte) error {
		if addr < acpi.Base || addr+uint64(len(data)) > acpi.End {
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
	at := func(b []byte) []byte { return ram[binary.LittleEndian.Uint64(b)-acpi.Base:] }
	xsdt := at(ram[24:])
	fadt, madt, mcfg := at(xsdt[36:]), at(xsdt[44:]), at(xsdt[52:])
	dsdt := at(fadt[140:])
	for want, b := range map[string][]byte{"XSDT": xsdt, "FACP": fadt, "APIC": madt, "MCFG": mcfg, "DSDT": dsdt} {
		if string(b[:4]) != want {
			t.Errorf("found %.4s where %s should be", b, want)
		}
	}
}

func TestNumberOfProcessors(t *testing.T) {
	for _, n := range []uint32{0, 255, 1 << 31} {
		if _, err := acpi.New(n, acpi.Base); !errors.Is(err, acpi.ErrCPUs) {
			t.Errorf("%d processors: %v", n, err)
		}
	}
}

func TestWriteStopsAtTheFirstError(t *testing.T) {
	broken, calls := errors.New("broken"), 0
	err := tables(t, 1).Write(func(uint64, []byte) error { calls++; return broken })
	if !errors.Is(err, broken) || calls != 1 {
		t.Errorf("%d calls, %v", calls, err)
	}
}
