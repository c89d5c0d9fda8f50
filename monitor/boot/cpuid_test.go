// SPDX-License-Identifier: Apache-2.0

package boot_test

import (
	"testing"

	"vmctl/abi"
	"vmctl/monitor/boot"
)

// supported is what a host with everything that matters here would say.
var supported = []abi.KVMCPUIDEntry2{
	{Function: 0, Eax: 0x1f},
	{Function: 1, Ebx: 0x0f081234, Ecx: 1<<5 | 1<<21, Edx: 1 << 28},
	{Function: 4, Index: 1, Eax: 0xfc01c022},
	{Function: 4, Index: 3, Eax: 0xfc01c063},
	{Function: 4, Index: 4, Eax: 0},
	{Function: 0xa, Eax: 5, Ebx: 6},
	{Function: 0xb, Index: 0, Ebx: 2},
	{Function: 0x1f, Ebx: 2},
	{Function: 0x80000001, Ecx: 1<<2 | 1<<23},
	{Function: 0x80000008, Eax: 0x3030, Ecx: 0x701f},
	{Function: 0x8000000a, Eax: 1},
	{Function: 0x8000001e, Ebx: 0x100},
}

func find(t *testing.T, list []abi.KVMCPUIDEntry2, function, index uint32) abi.KVMCPUIDEntry2 {
	t.Helper()
	for _, e := range list {
		if e.Function == function && e.Index == index {
			return e
		}
	}
	t.Fatalf("no leaf %#x.%d", function, index)
	return abi.KVMCPUIDEntry2{}
}

func TestFourCores(t *testing.T) {
	list := boot.CPUs{Count: 4, Deadline: true}.CPUID(supported, 3)
	if e := find(t, list, 1, 0); e.Ebx != 0x03041234 || e.Ecx != 1<<31|1<<24|1<<21 || e.Edx != 1<<28 {
		t.Errorf("leaf 1: %#x %#x %#x", e.Ebx, e.Ecx, e.Edx)
	}
	if e := find(t, list, 0xb, 1); e.Eax != 2 || e.Ebx != 4 || e.Ecx != 0x201 || e.Edx != 3 {
		t.Errorf("cores: %+v", e)
	}
	if e := find(t, list, 0xb, 0); e.Eax != 0 || e.Ebx != 1 || e.Ecx != 0x100 || e.Flags != 1 {
		t.Errorf("threads: %+v", e)
	}
	if e := find(t, list, 4, 1); e.Eax != 3<<26|0x22 {
		t.Errorf("first cache: %#x", e.Eax)
	}
	if e := find(t, list, 4, 3); e.Eax != 3<<26|3<<14|0x63 {
		t.Errorf("third cache: %#x", e.Eax)
	}
	if e := find(t, list, 4, 4); e.Eax != 0 {
		t.Errorf("cache after the last: %#x", e.Eax)
	}
	if e := find(t, list, 0x80000008, 0); e.Ecx != 0x2003 || e.Eax != 0x3030 {
		t.Errorf("AMD cores: %#x", e.Ecx)
	}
	if e := find(t, list, 0x8000001e, 0); e.Eax != 3 || e.Ebx != 3 || e.Ecx != 0 {
		t.Errorf("AMD ids: %+v", e)
	}
}

func TestHiddenFeatures(t *testing.T) {
	list := boot.CPUs{Count: 1}.CPUID(supported, 0)
	if e := find(t, list, 0x80000001, 0); e.Ecx != 0 {
		t.Errorf("0x80000001: %#x", e.Ecx)
	}
	for _, leaf := range []uint32{0xa, 0x8000000a} {
		if e := find(t, list, leaf, 0); e.Eax|e.Ebx|e.Ecx|e.Edx != 0 {
			t.Errorf("leaf %#x: %+v", leaf, e)
		}
	}
	if e := find(t, list, 1, 0); e.Ecx&(1<<5|1<<24) != 0 || e.Edx&(1<<28) != 0 || e.Ebx>>16 != 1 {
		t.Errorf("leaf 1: %#x %#x %#x", e.Ebx, e.Ecx, e.Edx)
	}
	for _, e := range list {
		if e.Function == 0x1f {
			t.Error("leaf 0x1f is still there")
		}
	}
}

func TestSupportedIsNotChanged(t *testing.T) {
	before := supported[1]
	boot.CPUs{Count: 64}.CPUID(supported, 63)
	if supported[1] != before {
		t.Error("the list was changed in place")
	}
}
