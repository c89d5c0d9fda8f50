// SPDX-License-Identifier: Apache-2.0

package acpi_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"vmctl/monitor/acpi"
)

// Intel's compiler takes each table apart and makes the same bytes of what it
// found, without an error or a warning. (It does not read the RSDP.)
func TestTablesByIASL(t *testing.T) {
	iasl, err := exec.LookPath("iasl")
	if err != nil {
		t.Fatalf("%v: install acpica-tools", err)
	}
	ts, pc := tables(t, acpi.Reduced, 4), tables(t, acpi.PC, 4)
	for name, want := range map[string][]byte{
		"xsdt": ts.XSDT, "facp": ts.FADT, "apic": ts.MADT, "mcfg": ts.MCFG, "dsdt": ts.DSDT,
		"facp of a PC": pc.FADT, "apic of a PC": pc.MADT, "dsdt of a PC": pc.DSDT,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			run := func(want string, args ...string) {
				t.Helper()
				cmd := exec.Command(iasl, args...)
				cmd.Dir = dir
				out, err := cmd.CombinedOutput()
				if err != nil || !bytes.Contains(out, []byte(want)) {
					t.Fatalf("iasl %v: %v\n%s", args, err, out)
				}
			}
			if err := os.WriteFile(filepath.Join(dir, "in.dat"), want, 0o644); err != nil {
				t.Fatal(err)
			}
			run("appears to be a valid ACPI table", "-d", "in.dat")
			// -oa: no optimisations, which would choose other names.
			run("0 Errors, 0 Warnings, 0 Remarks", "-oa", "-p", "out", "in.dsl")
			got, err := os.ReadFile(filepath.Join(dir, "out.aml"))
			if err != nil {
				t.Fatal(err)
			}
			if g, w := unsigned(got), unsigned(want); !bytes.Equal(g, w) {
				t.Errorf("iasl makes\n%x\nof\n%x", g, w)
			}
		})
	}
}

// unsigned is a table without what a compiler signs it with: checksum, name and
// revision of the compiler.
func unsigned(table []byte) []byte {
	b := bytes.Clone(table)
	b[9] = 0
	clear(b[28:36])
	return b
}
