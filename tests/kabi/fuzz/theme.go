// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

// theme is what a thread is about for a while: which calls, how often, and how
// many of them are broken.
type theme struct {
	name    string
	weight  int
	least   int  // calls; at most twice as many
	wild    int  // percent of the calls
	machine bool // begins with a machine that is ready to run
	mix     []share
	ops     []op
	upTo    []int // sums of the weights
}

// share is how often an operation comes.
type share struct {
	name   string
	weight int
}

func (t *theme) pick(g *gen) op { return t.ops[pickWeight(g, t.upTo)] }

var themes = func() []theme {
	list := []theme{
		{name: "life", weight: 6, least: 15, wild: 10, mix: lifeMix},
		{name: "run", weight: 22, least: 150, wild: 5, machine: true, mix: runMix},
		{name: "gate", weight: 14, least: 150, wild: 5, machine: true, mix: gateMix},
		{name: "registers", weight: 12, least: 150, wild: 15, machine: true, mix: regsMix},
		{name: "backends", weight: 16, least: 150, wild: 12, machine: true, mix: backendMix},
		{name: "platform", weight: 12, least: 120, wild: 15, machine: true, mix: platformMix},
		{name: "descriptors", weight: 12, least: 100, wild: 8, machine: true, mix: fdMix},
		{name: "netlink", weight: 10, least: 60, wild: 35, mix: netlinkMix},
		{name: "observe", weight: 12, least: 200, wild: 15, machine: true, mix: observeMix},
		{name: "hostile", weight: 10, least: 200, wild: 60, mix: everything()},
	}
	for i := range list {
		t := &list[i]
		sum := 0
		for _, s := range t.mix {
			sum += s.weight
			t.ops, t.upTo = append(t.ops, named(s.name)), append(t.upTo, sum)
		}
	}
	return list
}()

var themeWeights = func() (upTo []int) {
	sum := 0
	for _, t := range themes {
		sum += t.weight
		upTo = append(upTo, sum)
	}
	return upTo
}()

// everything is each operation, but seldom those that end or slow down a machine.
func everything() []share {
	seldom := map[string]bool{
		"low limit": true, "VM_STOP": true, "VM_DESTROY": true, "VM_CREATE": true, "VM_BIND": true, "fork": true, "sweep": true, "VM_REPORT": true,
	}
	var mix []share
	for i := range ops {
		w := 10
		if seldom[ops[i].name] {
			w = 1
		}
		mix = append(mix, share{ops[i].name, w})
	}
	return mix
}

var lifeMix = []share{
	{"VM_CREATE", 10}, {"VM_BIND", 10}, {"VM_OPEN", 8}, {"VM_DELEGATE", 6}, {"VM_CONFIG_SET", 10}, {"VM_STOP", 5},
	{"VM_DESTROY", 5}, {"VCPU_CREATE", 6}, {"VM_REPORT", 3}, {"GET_INFO VM", 10}, {"GET_INFO LIMITS", 4}, {"close", 6},
	{"poll", 4}, {"TOMB_GET do", 4}, {"VM_PAUSE", 4}, {"VM_RESUME", 4}, {"VM_ATTACH_DISK", 4}, {"open disk", 4},
	{"pass", 3}, {"take", 3}, {"orphan", 2}, {"VM_GET dump", 3}, {"EVENT_GET", 3},
}

var runMix = []share{
	{"VCPU_RUN", 60}, {"VCPU_KICK", 8}, {"immediate exit", 5}, {"signal", 5}, {"VCPU_GET_REGS GENERAL", 8},
	{"VCPU_SET_REGS GENERAL", 8}, {"VM_SIGNAL MSI", 3}, {"VM_SIGNAL LINE", 3}, {"ring", 5}, {"VM_PAUSE", 3}, {"VM_RESUME", 5},
	{"VCPU_PAUSE", 2}, {"VCPU_RESUME", 4}, {"VM_GET_STATS VCPU", 4}, {"GET_INFO VM", 6}, {"touch run", 4}, {"map run", 1},
	{"unmap run", 1}, {"programs", 1}, {"poll", 3}, {"VM_REPORT", 1}, {"VM_MAP_MEMORY", 1}, {"VM_DIRTY_LOG", 2},
}

var gateMix = []share{
	{"VM_PAUSE", 20}, {"VM_RESUME", 22}, {"VCPU_PAUSE", 12}, {"VCPU_RESUME", 14}, {"VCPU_RUN", 40}, {"VCPU_KICK", 8},
	{"signal", 8}, {"VM_GET_STATS VCPU", 6}, {"VM_GET_STATS VM", 6}, {"GET_INFO VM", 8}, {"VM_GET do", 4}, {"VCPU_GET", 4},
	{"VCPU_GET_REGS GENERAL", 5}, {"VCPU_SET_REGS GENERAL", 5}, {"poll", 4}, {"VM_STOP", 1}, {"VM_OPEN", 2}, {"immediate exit", 3},
}

var regsMix = append([]share{
	{"VCPU_RUN", 12}, {"VCPU_KICK", 4}, {"signal", 2}, {"VM_GET_STATS KVM", 4}, {"GET_INFO KVM_CPUID", 3}, {"GET_INFO KVM_MSRS", 3},
	{"GET_INFO KVM_EXTENSION", 4}, {"GET_INFO RUN_SIZE", 3},
}, allOf(regsOps(), 4)...)

var backendMix = []share{
	{"VM_ATTACH_DISK", 24}, {"VM_ATTACH_NIC", 14}, {"VM_DETACH", 26}, {"VM_GET_BACKEND", 30}, {"open disk", 16}, {"open tap", 4},
	{"drop taken", 24}, {"close", 2}, {"DEVICE_GET", 10}, {"poll", 8}, {"VM_GET_STATS VM", 6}, {"VM_CONFIG_SET", 2}, {"use taken", 8},
	{"watch", 4}, {"pass", 3}, {"take", 3}, {"low limit", 1}, {"VM_STOP", 1}, {"VM_OPEN", 2}, {"GET_INFO VM", 4},
}

var platformMix = append(append(append([]share{
	{"VCPU_RUN", 8}, {"ring", 6}, {"VCPU_KICK", 2}, {"programs", 1}, {"remap area", 2}, {"protect area", 2}, {"drop area", 2},
	{"GET_INFO KVM_EXTENSION", 2},
}, allOf(setupOps(), 2)...), allOf(platformOps(), 8)...), allOf(stateOps(), 4)...)

var fdMix = append(append([]share{
	{"GET_INFO VM", 20}, {"VM_DELEGATE", 10}, {"VM_OPEN", 8}, {"VCPU_RUN", 10}, {"VCPU_KICK", 3}, {"map run", 4},
	{"unmap run", 3}, {"move run", 3}, {"protect run", 3}, {"touch run", 6}, {"VM_GET_STATS VM", 6}, {"VM_GET_BACKEND", 5},
	{"VCPU_GET_REGS GENERAL", 6}, {"low limit", 1}, {"fork", 1},
}, allOf(fdOps(), 3)...), allOf(passOps(), 3)...)

var netlinkMix = append([]share{{"open nl", 3}, {"VM_CREATE", 1}, {"VM_OPEN", 1}}, allOf(netlinkOps(), 8)...)

var observeMix = []share{
	{"GET_INFO VM", 20}, {"GET_INFO ABI", 10}, {"GET_INFO LIMITS", 10}, {"GET_INFO RUN_SIZE", 4}, {"GET_INFO KVM_EXTENSION", 6},
	{"VM_GET_STATS VM", 14}, {"VM_GET_STATS VCPU", 14}, {"VM_GET_STATS KVM", 10}, {"poll", 6}, {"fdinfo", 2}, {"VCPU_RUN", 8},
	{"VCPU_KICK", 4}, {"VM_GET do", 8}, {"VM_PAUSE", 2}, {"VM_RESUME", 3}, {"unknown", 10}, {"VM_GET_BACKEND", 4}, {"VM_DELEGATE", 4},
}

func allOf(list []operation, weight int) (mix []share) {
	for _, o := range list {
		mix = append(mix, share{o.name, weight})
	}
	return mix
}
