// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
)

// words are the parts of C names that are not written with one capital in Go.
var words = map[string]string{
	"abi": "ABI", "api": "API", "cpuid": "CPUID", "cpuid2": "CPUID2", "devid": "DevID", "fd": "FD", "fpu": "FPU",
	"gsi": "GSI", "id": "ID", "io": "IO", "eoi": "EOI", "cpu": "CPU", "ids": "IDs", "ioapic": "IOAPIC", "ioc": "IOC", "ioeventfd": "IOEventFD", "irq": "IRQ",
	"irqchip": "IRQChip", "irqfd": "IRQFD", "khz": "KHz", "kvm": "KVM", "lapic": "LAPIC", "mmio": "MMIO", "mmu": "MMU",
	"mp": "MP", "msi": "MSI", "msr": "MSR", "msrs": "MSRs", "nmi": "NMI", "pic": "PIC", "pio": "PIO", "pit": "PIT",
	"pit2": "PIT2", "sipi": "SIPI", "smi": "SMI", "smm": "SMM", "tsc": "TSC", "tss": "TSS", "uuid": "UUID", "vcpu": "VCPU", "vcpus": "VCPUs",
	"vm": "VM", "vms": "VMs", "xcrs": "XCRs", "xcr": "XCR", "x2apic": "X2APIC",
	"dtable": "DTable", "debugregs": "DebugRegs", "datamatch": "DataMatch", "memslots": "MemSlots", "resamplefd": "ResampleFD",
	"kvmclock": "KVMClock", "vcpuevent": "VCPUEvent", "nmsrs": "NMSRs",
	"rdmsr": "RDMSR", "wrmsr": "WRMSR", "rdtsc": "RDTSC", "hlt": "HLT", "hz": "Hz", "ntf": "Ntf", "nic": "NIC", "regs": "Regs", "ns": "Ns", "dev": "Dev", "sregs2": "Sregs2",
	"mcgrp": "MCGroup", "genl": "Genl",
}

// exceptions are the names that no rule gives.
var exceptions = map[string]string{
	"VMM_ABI":                 "ABINumber",
	"__VMM_A_VM_MAX":          "AVMMax",
	"__VMM_A_VCPU_MAX":        "AVCPUMax",
	"__VMM_A_DEV_MAX":         "ADevMax",
	"__VMM_RIGHT_ALL":         "RightAll",
	"__VMM_PAUSE_ALL":         "PauseAll",
	"KVM_IRQ_ROUTING_IRQCHIP": "KVMIRQRouteIRQChip",
	"KVM_IRQ_ROUTING_MSI":     "KVMIRQRouteMSI",
}

// typed constants: prefix of the C name, the Go type.
var constTypes = []struct{ prefix, typ string }{
	{"VMM_VM_STATE_", "VMState"},
	{"VMM_VCPU_STATE_", "VCPUState"},
	{"VMM_BACKEND_", "BackendKind"},
	{"VMM_BACKEND_STATE_", "BackendState"}, // the last that fits holds
	{"VMM_ROLE_", "Role"},
	{"VMM_LIMIT_", "Limit"},
	{"VMM_REASON_", "Reason"},
	{"VMM_EVENT_", "Event"},
	{"VMM_RIGHT_", "Right"},
	{"__VMM_RIGHT_", "Right"},
	{"VMM_PAUSE_", "Pause"},
	{"__VMM_PAUSE_", "Pause"},
}

// camel joins the words of a C name in Go style.
func camel(c string) string {
	var b strings.Builder
	for _, w := range strings.FieldsFunc(strings.ToLower(c), func(r rune) bool { return r == '_' }) {
		if g, ok := words[w]; ok {
			b.WriteString(g)
		} else {
			b.WriteString(strings.ToUpper(w[:1]) + w[1:])
		}
	}
	return b.String()
}

// name gives each symbol its Go name and type, and refuses two that are equal.
func (s *symbols) name() error {
	for i := range s.consts {
		s.consts[i].goN, s.consts[i].typ = constName(s.consts[i])
	}
	for i := range s.structs {
		s.structs[i].goN = structName(s.structs[i].c)
	}
	seen := map[string]string{}
	for _, list := range [][]symbol{s.consts, s.structs} {
		for _, sym := range list {
			if other, ok := seen[sym.goN]; ok {
				return fmt.Errorf("name %s: %s and %s would both be that in Go", sym.goN, other, sym.c)
			}
			seen[sym.goN] = sym.c
		}
	}
	return nil
}

func constName(sym symbol) (name, typ string) {
	for _, t := range constTypes {
		if strings.HasPrefix(sym.c, t.prefix) {
			typ = t.typ
		}
	}
	if n, ok := exceptions[sym.c]; ok {
		return n, typ
	}
	name = camel(strings.TrimPrefix(sym.c, "VMM_"))
	if sym.ioctl && strings.HasPrefix(sym.c, "KVM_") {
		name = "IOC" + name
	}
	return name, typ
}

// structName turns vmm_info_vm into VMInfo and vmm_stats_vm into VMStats, so that
// InfoVM and StatsVM stay free for the classes, and takes the prefix of the others away.
func structName(c string) string {
	if rest, ok := strings.CutPrefix(c, "vmm_info_"); ok {
		return camel(rest) + "Info"
	}
	if rest, ok := strings.CutPrefix(c, "vmm_stats_"); ok {
		return camel(rest) + "Stats"
	}
	return camel(strings.TrimPrefix(c, "vmm_"))
}
