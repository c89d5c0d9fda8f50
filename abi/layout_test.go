// SPDX-License-Identifier: Apache-2.0

package abi_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unsafe"

	"vmctl/abi"
)

type field struct {
	c, goN       string
	offset, size uintptr
}

type structure struct {
	c, goN string
	size   uintptr
	fields []field
}

type golden struct {
	consts  [][2]string // name in C, value
	structs []structure
}

func readGolden(t *testing.T) golden {
	t.Helper()
	text, err := os.ReadFile("layout.golden")
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	for line := range strings.Lines(string(text)) {
		var f field
		var s structure
		var name, value string
		if n, _ := fmt.Sscanf(line, "const %s %s", &name, &value); n == 2 {
			g.consts = append(g.consts, [2]string{name, value})
		} else if n, _ := fmt.Sscanf(line, "struct %s %s %d", &s.c, &s.goN, &s.size); n == 3 {
			g.structs = append(g.structs, s)
		} else if n, _ := fmt.Sscanf(line, "\t%s %s %d %d", &f.c, &f.goN, &f.offset, &f.size); n == 4 {
			last := &g.structs[len(g.structs)-1]
			last.fields = append(last.fields, f)
		} else if !strings.HasPrefix(line, "#") {
			t.Fatalf("layout.golden: %q", line)
		}
	}
	return g
}

func TestLayoutGo(t *testing.T) {
	g := readGolden(t)
	if len(g.structs) != len(structures) {
		t.Errorf("layout.golden has %d structures, the package %d", len(g.structs), len(structures))
	}
	for _, s := range g.structs {
		typ, ok := structures[s.goN]
		if !ok {
			t.Errorf("%s: not in the package", s.goN)
			continue
		}
		if typ.Size() != s.size {
			t.Errorf("%s: size %d, want %d", s.goN, typ.Size(), s.size)
		}
		if typ.NumField() != len(s.fields) {
			t.Errorf("%s: %d fields, want %d", s.goN, typ.NumField(), len(s.fields))
			continue
		}
		for i, f := range s.fields {
			got := typ.Field(i)
			if got.Name != f.goN || got.Offset != f.offset || got.Type.Size() != f.size {
				t.Errorf("%s: field %s at %d size %d, want %s at %d size %d",
					s.goN, got.Name, got.Offset, got.Type.Size(), f.goN, f.offset, f.size)
			}
		}
	}
}

// TestNoHoles holds our own structures to the rule of vmm.h: no padding that has
// no name, and a size that is a multiple of 8 where there is a 64-bit field.
func TestNoHoles(t *testing.T) {
	for _, s := range readGolden(t).structs {
		if !strings.HasPrefix(s.c, "vmm_") {
			continue
		}
		var end uintptr
		for _, f := range s.fields {
			if f.offset != end {
				t.Errorf("%s.%s: at %d, the field before ends at %d", s.c, f.c, f.offset, end)
			}
			end = f.offset + f.size
		}
		if end != s.size {
			t.Errorf("%s: %d bytes behind the last field", s.c, s.size-end)
		}
	}
}

// Our names for what has none in Linux, and what stands there.
var (
	linuxStruct = map[string]string{
		"kvm_vcpu_events_exception":    "((struct kvm_vcpu_events *)0)->exception",
		"kvm_vcpu_events_interrupt":    "((struct kvm_vcpu_events *)0)->interrupt",
		"kvm_vcpu_events_nmi":          "((struct kvm_vcpu_events *)0)->nmi",
		"kvm_vcpu_events_smi":          "((struct kvm_vcpu_events *)0)->smi",
		"kvm_vcpu_events_triple_fault": "((struct kvm_vcpu_events *)0)->triple_fault",
	}
	linuxField = map[string]string{"kvm_run.exit": "io", "kvm_irq_level.irq": "irq"}
)

// runUnions is where C says that the structures of run.go lie.
func runUnions() []string {
	at := unsafe.Offsetof(abi.KVMRun{}.Exit)
	var io abi.RunIO
	var mmio abi.RunMMIO
	var entry abi.RunFailEntry
	var internal abi.RunInternalError
	var event abi.RunSystemEvent
	var msi abi.KVMIRQRoutingMSI
	offset := func(strct, field string, want uintptr) string {
		return fmt.Sprintf("_Static_assert(offsetof(struct %s, %s) == %d, \"%s\");", strct, field, want, field)
	}
	return []string{
		offset("kvm_run", "io.direction", at+unsafe.Offsetof(io.Direction)),
		offset("kvm_run", "io.size", at+unsafe.Offsetof(io.Size)),
		offset("kvm_run", "io.port", at+unsafe.Offsetof(io.Port)),
		offset("kvm_run", "io.count", at+unsafe.Offsetof(io.Count)),
		offset("kvm_run", "io.data_offset", at+unsafe.Offsetof(io.DataOffset)),
		offset("kvm_run", "mmio.phys_addr", at+unsafe.Offsetof(mmio.PhysAddr)),
		offset("kvm_run", "mmio.data", at+unsafe.Offsetof(mmio.Data)),
		offset("kvm_run", "mmio.len", at+unsafe.Offsetof(mmio.Len)),
		offset("kvm_run", "mmio.is_write", at+unsafe.Offsetof(mmio.IsWrite)),
		offset("kvm_run", "fail_entry.hardware_entry_failure_reason", at+unsafe.Offsetof(entry.HardwareEntryFailureReason)),
		offset("kvm_run", "fail_entry.cpu", at+unsafe.Offsetof(entry.CPU)),
		offset("kvm_run", "internal.suberror", at+unsafe.Offsetof(internal.Suberror)),
		offset("kvm_run", "internal.ndata", at+unsafe.Offsetof(internal.NData)),
		offset("kvm_run", "internal.data", at+unsafe.Offsetof(internal.Data)),
		offset("kvm_run", "system_event.type", at+unsafe.Offsetof(event.Type)),
		offset("kvm_run", "system_event.ndata", at+unsafe.Offsetof(event.NData)),
		offset("kvm_run", "system_event.data", at+unsafe.Offsetof(event.Data)),
		offset("kvm_irq_routing_entry", "u.msi.data", unsafe.Offsetof(abi.KVMIRQRoutingEntry{}.U)+unsafe.Offsetof(msi.Data)),
		offset("kvm_irqchip", "chip.ioapic", unsafe.Offsetof(abi.KVMIRQChip{}.Chip)),
	}
}

// staticAsserts is a C file that compiles only against a header with the layout
// of g.
func staticAsserts(g golden, header string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "#include <stddef.h>\n#include %q\n", header)
	for _, c := range g.consts {
		if strings.HasPrefix(c[1], `"`) {
			fmt.Fprintf(&b, "_Static_assert(!__builtin_strcmp(%s, %s), \"%s\");\n", c[0], c[1], c[0])
		} else {
			fmt.Fprintf(&b, "_Static_assert(%s == %s, \"%s\");\n", c[0], c[1], c[0])
		}
	}
	for _, s := range g.structs {
		typ := "struct " + s.c
		if expr, ok := linuxStruct[s.c]; ok {
			typ = "__typeof__(" + expr + ")"
		}
		fmt.Fprintf(&b, "_Static_assert(sizeof(%s) == %d, \"%s\");\n", typ, s.size, s.c)
		for _, f := range s.fields {
			if strings.HasPrefix(s.c, "kvm_") && isPadding(f.c) {
				continue // Linux may give it a meaning
			}
			name := f.c
			if n, ok := linuxField[s.c+"."+f.c]; ok {
				name = n
			}
			fmt.Fprintf(&b, "_Static_assert(offsetof(%s, %s) == %d, \"%s.%s\");\n", typ, name, f.offset, s.c, name)
		}
	}
	b.WriteString(strings.Join(runUnions(), "\n") + "\n")
	return b.String()
}

func isPadding(c string) bool { return strings.HasPrefix(c, "pad") || strings.HasPrefix(c, "reserved") }

// TestLayoutC compiles the golden against vmm.h and the host's own <linux/kvm.h>,
// not the copy that abigen reads.
func TestLayoutC(t *testing.T) {
	header, err := filepath.Abs("vmm.h")
	if err != nil {
		t.Fatal(err)
	}
	cc := os.Getenv("CC")
	if cc == "" {
		cc = "cc"
	}
	cmd := exec.CommandContext(t.Context(), cc, "-x", "c", "-std=gnu11", "-fsyntax-only", "-Wall", "-Werror", "-")
	cmd.Stdin = strings.NewReader(staticAsserts(readGolden(t), header))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", cc, err, out)
	}
}

// TestLayoutCNotices shows that a wrong golden does not compile.
func TestLayoutCNotices(t *testing.T) {
	header, err := filepath.Abs("vmm.h")
	if err != nil {
		t.Fatal(err)
	}
	g := readGolden(t)
	g.structs[0].fields[0].offset += 4
	cmd := exec.CommandContext(t.Context(), "cc", "-x", "c", "-std=gnu11", "-fsyntax-only", "-")
	cmd.Stdin = strings.NewReader(staticAsserts(g, header))
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "static assertion failed") {
		t.Errorf("a wrong offset passed: %v\n%s", err, out)
	}
}

// TestRunUnionsFit keeps every structure of run.go inside the union.
func TestRunUnionsFit(t *testing.T) {
	room := unsafe.Sizeof(abi.KVMRun{}.Exit)
	for _, typ := range []reflect.Type{
		reflect.TypeFor[abi.RunIO](), reflect.TypeFor[abi.RunMMIO](), reflect.TypeFor[abi.RunFailEntry](),
		reflect.TypeFor[abi.RunInternalError](), reflect.TypeFor[abi.RunSystemEvent](),
	} {
		if typ.Size() > room {
			t.Errorf("%v: %d bytes, the union has %d", typ, typ.Size(), room)
		}
	}
}
