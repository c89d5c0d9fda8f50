// SPDX-License-Identifier: Apache-2.0

package syz

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var files = []string{"dev_vmm.txt", "socket_netlink_generic_vmm.txt"}

// header is what abi/layout.golden says of vmm.h, and of <linux/kvm.h>.
type header struct {
	consts  map[string]string
	structs map[string]structure
}

type structure struct {
	size   int
	fields []field
}

type field struct {
	name      string
	off, size int
}

func readHeader(t *testing.T) header {
	t.Helper()
	text, err := os.ReadFile("../../../abi/layout.golden")
	if err != nil {
		t.Fatal(err)
	}
	h := header{map[string]string{}, map[string]structure{}}
	last := ""
	for line := range strings.Lines(string(text)) {
		var name, other string
		var s structure
		var f field
		if n, _ := fmt.Sscanf(line, "const %s %s", &name, &other); n == 2 {
			h.consts[name] = other
		} else if n, _ := fmt.Sscanf(line, "struct %s %s %d", &name, &other, &s.size); n == 3 {
			last = name
			h.structs[name] = s
		} else if n, _ := fmt.Sscanf(line, "\t%s %s %d %d", &f.name, &other, &f.off, &f.size); n == 4 {
			s := h.structs[last]
			s.fields = append(s.fields, f)
			h.structs[last] = s
		}
	}
	if len(h.consts) < 100 || len(h.structs) < 20 {
		t.Fatalf("layout.golden has %d constants and %d structures", len(h.consts), len(h.structs))
	}
	return h
}

// TestCommands finds commands of the header that no call gives.
func TestCommands(t *testing.T) {
	h, d := readHeader(t), parse(t, files...)
	given := map[string]bool{}
	for name, c := range d.calls {
		for _, a := range c.args {
			if c.name == "ioctl" && a.name == "cmd" {
				given[a.typ.args[0].name] = true
				if !strings.HasPrefix(name, "ioctl$"+a.typ.args[0].name) {
					t.Errorf("%s gives %s", name, a.typ.args[0].name)
				}
			}
			if c.name == "sendmsg" && a.name == "msg" {
				given[a.typ.args[1].args[0].name] = true
			}
		}
	}
	for name := range h.consts {
		if (strings.HasPrefix(name, "VMM_IOC_") || strings.HasPrefix(name, "VMM_CMD_")) && name != "VMM_IOC_MAGIC" && !given[name] {
			t.Errorf("%s is in no call", name)
		}
	}
}

// TestStructures compares each structure of vmm.h, field by field.
func TestStructures(t *testing.T) {
	h, d := readHeader(t), parse(t, files...)
	for name, want := range h.structs {
		if !strings.HasPrefix(name, "vmm_") {
			continue
		}
		g, ok := d.groups[name]
		if !ok {
			t.Errorf("struct %s is not described", name)
			continue
		}
		var got []field
		end := 0
		for _, m := range g.members {
			size, align, err := d.sizeOf(h, m.typ)
			if err != nil {
				t.Errorf("%s.%s: %v", name, m.name, err)
			}
			off := (end + align - 1) / align * align
			got = append(got, field{m.name, off, size})
			end = off + size
		}
		if !slices.Equal(got, want.fields) || end != want.size {
			t.Errorf("%s is\n%v, %d bytes, in the header\n%v, %d bytes", name, got, end, want.fields, want.size)
		}
	}
}

var intType = regexp.MustCompile(`^int(8|16|32|64)$`)

// sizeOf is the size and the alignment of a type.
func (d *description) sizeOf(h header, e expr) (size, align int, err error) {
	if m := intType.FindStringSubmatch(e.name); m != nil {
		bits, err := strconv.Atoi(m[1])
		return bits / 8, bits / 8, err
	}
	switch e.name {
	case "const", "flags", "len", "proc":
		return d.sizeOf(h, e.args[len(e.args)-1])
	case "fd", "fd_tun":
		return 4, 4, nil
	case "string":
		n, err := h.number(e.args[1])
		return n, 1, err
	case "array":
		if len(e.args) < 2 {
			return 0, 1, fmt.Errorf("array of no length")
		}
		size, align, err = d.sizeOf(h, e.args[0])
		if err != nil {
			return 0, 1, err
		}
		n, err := h.number(e.args[1])
		return n * size, align, err
	}
	if base, ok := d.resources[e.name]; ok {
		return d.sizeOf(h, expr{name: base})
	}
	if g, ok := d.groups[e.name]; ok && !g.union {
		align = 1
		for _, m := range g.members {
			s, a, err := d.sizeOf(h, m.typ)
			if err != nil {
				return 0, 1, err
			}
			size = (size+a-1)/a*a + s
			align = max(align, a)
		}
		return (size + align - 1) / align * align, align, nil
	}
	if s, ok := h.structs[e.name]; ok { // of dev_kvm.txt
		return s.size, 4, nil
	}
	return 0, 1, fmt.Errorf("no size of %s", e.name)
}

// number is a constant or a literal.
func (h header) number(e expr) (int, error) {
	text := e.name
	if c, ok := h.consts[text]; ok {
		text = c
	}
	n, err := strconv.ParseInt(text, 0, 64)
	return int(n), err
}

// TestConstants finds names that the header has not, and classes, bits and
// attributes of the header that nothing uses.
func TestConstants(t *testing.T) {
	h, d := readHeader(t), parse(t, files...)
	used := map[string]bool{}
	for name := range d.names {
		used[name] = true
	}
	for _, values := range d.flags {
		for _, v := range values {
			used[v] = true
		}
	}
	for name := range used {
		if _, ok := h.consts[name]; !ok && (strings.HasPrefix(name, "VMM_") || strings.HasPrefix(name, "KVM_")) {
			t.Errorf("%s is not in the header", name)
		}
	}
	must := regexp.MustCompile(`^VMM_(A|INFO|SETUP|SIGNAL|STATE|STATS|REGS|RIGHT|ROLE|PAUSE|EVENT)_`)
	for name := range h.consts {
		if must.MatchString(name) && !used[name] {
			t.Errorf("%s is not used", name)
		}
	}
}

// elsewhere are types, flags and templates of syzkaller's own descriptions.
var elsewhere = []string{
	"fd", "fd_tun", "open_flags", "mmap_prot", "mmap_flags", "send_flags", "fileoff", "vma", "sock_nl_generic", "msghdr_netlink",
	"netlink_msg_t", "genlmsghdr_t", "nlattr", "kvm_cpuid2", "kvm_msr_list", "kvm_pit_config", "kvm_pit_state2", "kvm_enable_cap",
	"kvm_x2apic_apis", "kvm_x86_exits", "kvm_x86_cr0", "kvm_x86_cr4", "kvm_x86_efer", "kvm_mp_state", "kvm_msi", "kvm_irq_level",
	"kvm_irqchip", "kvm_clock_data", "kvm_userspace_memory_region", "kvm_ioeventfd", "kvm_irqfd", "kvm_irq_routing", "kvm_dirty_log",
	"kvm_regs", "kvm_sregs", "kvm_fpu", "kvm_xcr", "kvm_debugregs", "kvm_msrs", "kvm_lapic_state", "kvm_vcpu_events", "kvm_segment",
	"kvm_dtable",
}

var builtin = []string{
	"const", "flags", "len", "proc", "ptr", "array", "string", "void", "in", "out", "inout", "parent", "int8", "int16", "int32",
	"int64", "opt", "addr",
}

// TestNames finds what is used and not declared, and what is declared and not used.
func TestNames(t *testing.T) {
	d := parse(t, files...)
	declared := slices.Concat(elsewhere, builtin, d.params())
	var ours []string
	for name := range d.groups {
		ours = append(ours, name)
	}
	for name := range d.aliases {
		ours = append(ours, name)
	}
	for name := range d.resources {
		ours = append(ours, name)
	}
	for name := range d.flags {
		ours = append(ours, name)
	}
	declared = append(declared, ours...)
	lower := regexp.MustCompile(`^[a-zA-Z]`)
	for name := range d.names {
		constant := strings.ToUpper(name) == name
		if lower.MatchString(name) && !constant && !slices.Contains(declared, name) {
			t.Errorf("%s is not declared", name)
		}
	}
	for _, name := range slices.Concat(ours, elsewhere) {
		used := d.names[name]
		for _, base := range d.resources {
			used = used || base == name
		}
		if !used {
			t.Errorf("%s is not used", name)
		}
	}
}
