// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
	"testing"
)

const header = `
#define VMM_GUARD_H
#define VMM_A	1	/* one */
#define VMM_IOC_X	_IO(VMM_IOC_MAGIC, 0x10)
#define __VMM_ALL	(VMM_A)
#define OTHER	3
/* #define VMM_COMMENT 4 */
struct vmm_x {
	__u32 a, b[2];	/* two; of them */
	struct kvm_y y;
	__u8 c[VMM_A][4];
};
`

func TestScan(t *testing.T) {
	var s symbols
	if err := s.scanText(header); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range s.consts {
		names = append(names, c.c)
	}
	if want := []string{"VMM_A", "VMM_IOC_X", "__VMM_ALL"}; !slices.Equal(names, want) {
		t.Errorf("constants %q, want %q", names, want)
	}
	if s.consts[0].ioctl || !s.consts[1].ioctl {
		t.Errorf("ioctl: %+v", s.consts)
	}
	if len(s.structs) != 1 || !slices.Equal(s.structs[0].fields, []string{"a", "b", "y", "c"}) {
		t.Errorf("structures %+v", s.structs)
	}
}

func TestScanRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"empty":     "",
		"nested":    "#define VMM_A 1\nstruct vmm_x {\n\tunion {\n\t\t__u32 a;\n\t} u;\n};\n",
		"bit field": "#define VMM_A 1\nstruct vmm_x {\n\t__u32 a:3;\n};\n",
	} {
		if err := new(symbols).scanText(text); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestNames(t *testing.T) {
	for _, tt := range []struct {
		sym       symbol
		name, typ string
	}{
		{symbol{c: "VMM_IOC_VM_CREATE"}, "IOCVMCreate", ""},
		{symbol{c: "VMM_A_VM_ID"}, "AVMID", ""},
		{symbol{c: "VMM_CMD_VM_GET"}, "CmdVMGet", ""},
		{symbol{c: "VMM_VM_STATE_RUNNING"}, "VMStateRunning", "VMState"},
		{symbol{c: "VMM_REASON_POWEROFF"}, "ReasonPoweroff", "Reason"},
		{symbol{c: "__VMM_RIGHT_ALL"}, "RightAll", "Right"},
		{symbol{c: "KVM_RUN", ioctl: true}, "IOCKVMRun", ""},
	} {
		if name, typ := constName(tt.sym); name != tt.name || typ != tt.typ {
			t.Errorf("%s: %s %s, want %s %s", tt.sym.c, name, typ, tt.name, tt.typ)
		}
	}
	for c, want := range map[string]string{"vmm_vm_create": "VMCreate", "vmm_info_vm": "VMInfo", "kvm_sregs": "KVMSregs"} {
		if got := structName(c); got != want {
			t.Errorf("%s: %s, want %s", c, got, want)
		}
	}
}

func TestNamesCollide(t *testing.T) {
	s := symbols{consts: []symbol{{c: "VMM_INFO_X"}}, structs: []symbol{{c: "vmm_infoX"}, {c: "vmm_info_x"}, {c: "vmm_x_info"}}}
	if err := s.name(); err == nil || !strings.Contains(err.Error(), "vmm_x_info") {
		t.Errorf("got %v, want a collision that names vmm_x_info", err)
	}
}
