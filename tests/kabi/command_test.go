// SPDX-License-Identifier: Apache-2.0

//go:build lab

package kabi

import (
	"testing"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// kind is a kind of descriptor.
type kind int

const (
	onDevice kind = iota
	onVM
	onVCPU
)

func (k kind) String() string { return [...]string{"device", "VM", "vCPU"}[k] }

// command is one way to give a command of vmm.h, with an argument that the
// kernel accepts.
type command struct {
	name  string
	req   uintptr
	on    kind
	at    stage     // where it succeeds
	also  []stage   // where it does not get EBUSY or ESHUTDOWN either
	right abi.Right // that it needs; 0: any
	bare  bool      // takes no argument
	head  bool      // by class: no flags behind the size
	zero  []int     // offsets of 32-bit fields that must be 0
	arg   func(m *machine) []byte
	first func(m *machine) // what must have happened before
}

// fd is the descriptor that a command goes to.
func (m *machine) fd(k kind) int {
	switch k {
	case onDevice:
		return m.dev.FD()
	case onVM:
		return m.vm.FD()
	}
	return m.cpu.FD()
}

// sized builds an argument whose first field is its size.
func sized[T any](v T) []byte {
	b := bytesOf(v)
	copy(b, bytesOf(uint32(len(b))))
	return b
}

func flagsArg(*machine) []byte { return sized(abi.VMFlags{}) }

// classed is the argument of a command by class with a fixed payload.
func classed[T any](class uint32, body T) func(*machine) []byte {
	return func(*machine) []byte { return payload(class, bytesOf(body)) }
}

// eventFD is an eventfd of the test.
func eventFD(t testing.TB) int {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	ok(t, err)
	t.Cleanup(func() { ok(t, unix.Close(fd)) })
	return fd
}

var (
	fromBound   = []stage{bound, withVCPU, withMem, running}
	untilStop   = []stage{created, bound, withVCPU, withMem, running}
	evenStopped = []stage{bound, withVCPU, withMem, running, stopped}
	anyStage    = []stage{created, bound, withVCPU, withMem, running, stopped}
	always      = []stage{created, bound, withVCPU, withMem, running, stopped, destroyed}
)

// commands are all that vmm.h has, each class of its own.
func commands() []command {
	return append(append(deviceCommands(), controlCommands()...),
		append(append(setupCommands(), runCommands()...), vcpuCommands()...)...)
}

func deviceCommands() []command {
	return []command{
		{name: "GET_INFO abi", req: abi.IOCGetInfo, on: onDevice, also: always, head: true,
			arg: classed(abi.InfoABI, abi.ABIInfo{})},
		{name: "GET_INFO limits", req: abi.IOCGetInfo, on: onDevice, also: always, head: true,
			arg: classed(abi.InfoLimits, abi.LimitsInfo{})},
		{name: "GET_INFO run size", req: abi.IOCGetInfo, on: onDevice, also: always, head: true,
			arg: classed(abi.InfoRunSize, abi.RunSizeInfo{})},
		{name: "VM_CREATE", req: abi.IOCVMCreate, on: onDevice, also: always, zero: []int{4, 100},
			arg: func(*machine) []byte {
				c := abi.VMCreate{UUID: newUUID(), ID: 1, FD: 1}
				copy(c.Name[:], "kabi-command")
				return sized(c)
			}},
		{name: "VM_OPEN", req: abi.IOCVMOpen, on: onDevice, also: anyStage, zero: []int{4},
			arg: func(m *machine) []byte { return sized(abi.VMOpen{ID: m.id, Rights: abi.RightObserve, FD: 1}) }},
	}
}

func controlCommands() []command {
	return []command{
		{name: "GET_INFO vm", req: abi.IOCGetInfo, on: onVM, also: always, head: true,
			arg: classed(abi.InfoVM, abi.VMInfo{})},
		{name: "VM_CONFIG_SET", req: abi.IOCVMConfigSet, on: onVM, also: []stage{created}, right: abi.RightControl, zero: []int{4},
			arg: func(*machine) []byte { return sized(abi.VMConfigSet{MaxVCPUs: 2}) }},
		{name: "VM_ATTACH_DISK", req: abi.IOCVMAttachDisk, on: onVM, also: untilStop, right: abi.RightControl, zero: []int{4},
			arg: func(m *machine) []byte { return attachArg(abi.Part{FD: diskFile(m.t), Role: abi.RoleData}) }},
		{name: "VM_ATTACH_NIC", req: abi.IOCVMAttachNIC, on: onVM, also: untilStop, right: abi.RightControl, zero: []int{4},
			arg: func(m *machine) []byte { return attachArg(abi.Part{FD: nullFile(m.t), Role: abi.RoleTap}) }},
		{name: "VM_DETACH", req: abi.IOCVMDetach, on: onVM, also: untilStop, right: abi.RightControl, zero: []int{4, 12},
			first: attachOne, arg: func(m *machine) []byte { return sized(abi.VMDetach{Backend: 1}) }},
		{name: "VM_PAUSE", req: abi.IOCVMPause, on: onVM, also: untilStop, right: abi.RightControl, zero: []int{4, 28},
			arg: func(*machine) []byte { return sized(abi.VMPause{Holder: abi.PauseOperator, Deadline: abi.Forever}) }},
		{name: "VM_RESUME", req: abi.IOCVMResume, on: onVM, also: untilStop, right: abi.RightControl, zero: []int{4, 12},
			first: func(m *machine) { _, _ = m.vm.Pause(abi.PauseOperator, abi.Forever) },
			arg:   func(*machine) []byte { return sized(abi.VMResume{Holder: abi.PauseOperator}) }},
		{name: "GET_STATS vm", req: abi.IOCVMGetStats, on: onVM, also: anyStage, right: abi.RightObserve, head: true,
			arg: classed(abi.StatsVM, abi.VMStats{})},
		{name: "GET_STATS vcpu", req: abi.IOCVMGetStats, on: onVM, at: withVCPU, also: anyStage, right: abi.RightObserve, head: true,
			arg: classed(abi.StatsVCPU, abi.VCPUStats{})},
		{name: "GET_STATS kvm", req: abi.IOCVMGetStats, on: onVM, at: bound, also: evenStopped, right: abi.RightObserve, head: true,
			arg: classed(abi.StatsKVM, abi.KVMStats{VCPU: abi.StatsOfVM})},
		{name: "VM_DELEGATE", req: abi.IOCVMDelegate, on: onVM, also: anyStage, right: abi.RightDelegate, zero: []int{4},
			arg: func(*machine) []byte { return sized(abi.VMDelegate{Rights: abi.RightObserve, FD: 1}) }},
		{name: "VM_STOP", req: abi.IOCVMStop, on: onVM, also: untilStop, right: abi.RightControl, zero: []int{4}, arg: flagsArg},
		{name: "VM_DESTROY", req: abi.IOCVMDestroy, on: onVM, also: anyStage, right: abi.RightControl, zero: []int{4}, arg: flagsArg},
	}
}

// diskFile is an empty file of a kind that a disk can be.
func diskFile(t testing.TB) int {
	t.Helper()
	fd, err := unix.MemfdCreate("kabi-disk", unix.MFD_CLOEXEC)
	ok(t, err)
	t.Cleanup(func() { ok(t, unix.Close(fd)) })
	return fd
}

// nullFile is a character device, which is all that is asked of a tap here.
func nullFile(t testing.TB) int {
	t.Helper()
	fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	ok(t, err)
	t.Cleanup(func() { ok(t, unix.Close(fd)) })
	return fd
}

func attachArg(parts ...abi.Part) []byte {
	a := abi.VMAttach{Count: uint32(len(parts))}
	for i, p := range parts {
		a.Files[i] = abi.BackendFile{FD: int32(p.FD), Role: p.Role}
	}
	return sized(a)
}

// attachOne attaches a disk, where the state allows it.
func attachOne(m *machine) {
	_, _ = m.vm.AttachDisk(abi.Part{FD: diskFile(m.t), Role: abi.RoleData})
}

func setupCommands() []command {
	setup := func(name string, arg func(*machine) []byte) command {
		return command{name: "VM_SETUP " + name, req: abi.IOCVMSetup, on: onVM, at: bound,
			also: []stage{bound, withVCPU, withMem}, right: abi.RightRun, head: true, arg: arg}
	}
	return []command{
		{name: "VM_BIND", req: abi.IOCVMBind, on: onVM, at: created, also: []stage{created}, right: abi.RightRun, zero: []int{4}, arg: flagsArg},
		setup("tss", classed(abi.SetupTSSAddr, uint64(0xfffb_d000))),
		setup("identity map", classed(abi.SetupIdentityMap, uint64(0xfffb_c000))),
		setup("irqchip", func(*machine) []byte { return payload(abi.SetupIRQChip) }),
		setup("tsc", func(m *machine) []byte { return payload(abi.SetupTSCKHz, bytesOf(uint64(1_000_000))) }),
		setup("cap", classed(abi.SetupCap, abi.KVMEnableCap{Cap: abi.KVMCapExceptionPayload, Args: [4]uint64{1}})),
		{name: "VCPU_CREATE", req: abi.IOCVCPUCreate, on: onVM, at: withVCPU, also: []stage{bound, withVCPU}, right: abi.RightRun, zero: []int{4},
			arg: func(*machine) []byte { return sized(abi.VCPUCreate{Index: 1, FD: 1}) }},
	}
}

func runCommands() []command {
	run := func(name string, req uintptr, zero []int, arg func(*machine) []byte) command {
		return command{name: name, req: req, on: onVM, at: withMem, also: fromBound,
			right: abi.RightRun, zero: zero, head: zero == nil, arg: arg}
	}
	get := func(name string, arg func(*machine) []byte) command {
		c := run("VM_GET_STATE "+name, abi.IOCVMGetState, nil, arg)
		c.also = evenStopped
		return c
	}
	return []command{
		{name: "GET_INFO kvm extension", req: abi.IOCGetInfo, on: onVM, at: bound, also: append([]stage{stopped, destroyed}, fromBound...), head: true,
			arg: classed(abi.InfoKVMExtension, abi.KVMExtensionInfo{Extension: abi.KVMCapIRQChip})},
		run("VM_MAP_MEMORY", abi.IOCVMMapMemory, []int{4}, func(m *machine) []byte {
			return sized(abi.VMMapMemory{Region: region(1, 1<<20, pages(m.t, 4096))})
		}),
		run("VM_MAP_MMIO", abi.IOCVMMapMMIO, []int{4}, func(m *machine) []byte {
			return sized(abi.VMMapMMIO{IOEventFD: abi.KVMIOEventFD{Addr: 2 << 20, Len: 4, FD: int32(eventFD(m.t))}})
		}),
		run("VM_MAP_IRQ", abi.IOCVMMapIRQ, []int{4}, func(m *machine) []byte {
			return sized(abi.VMMapIRQ{IRQFD: abi.KVMIRQFD{FD: uint32(eventFD(m.t)), GSI: 5}})
		}),
		run("VM_SET_ROUTES", abi.IOCVMSetRoutes, []int{4, 12}, func(*machine) []byte {
			return routesArg(abi.RouteIRQChip(4, abi.KVMIRQChipIOAPIC, 4), abi.RouteMSI(5, 0xfee0_0000, 0x40))
		}),
		{name: "VM_GET_BACKEND", req: abi.IOCVMGetBackend, on: onVM, at: bound, also: fromBound, right: abi.RightRun, zero: []int{4, 20},
			first: attachOne, arg: func(*machine) []byte { return sized(abi.VMGetBackend{}) }},
		{name: "VM_DIRTY_LOG", req: abi.IOCVMDirtyLog, on: onVM, at: withMem, also: evenStopped, right: abi.RightRun, zero: []int{4, 12},
			arg: func(m *machine) []byte {
				return sized(abi.VMDirtyLog{Log: abi.KVMDirtyLog{DirtyBitmap: addressOf(pages(m.t, 4096))}})
			}},
		run("VM_SIGNAL msi", abi.IOCVMSignal, nil, classed(abi.SignalMSI, abi.KVMMSI{AddressLo: 0xfee0_0000, Data: 0x40})),
		run("VM_SIGNAL line", abi.IOCVMSignal, nil, classed(abi.SignalLine, abi.KVMIRQLevel{IRQ: 3})),
		get("irqchip", classed(abi.StateIRQChip, abi.KVMIRQChip{ChipID: abi.KVMIRQChipIOAPIC})),
		get("pit", classed(abi.StatePIT, abi.KVMPITState2{})),
		get("clock", classed(abi.StateClock, abi.KVMClockData{})),
		run("VM_SET_STATE irqchip", abi.IOCVMSetState, nil, func(m *machine) []byte {
			chip := abi.KVMIRQChip{ChipID: abi.KVMIRQChipPICMaster}
			return payload(abi.StateIRQChip, bytesOf(chip))
		}),
		run("VM_SET_STATE pit", abi.IOCVMSetState, nil, classed(abi.StatePIT, abi.KVMPITState2{})),
		run("VM_SET_STATE clock", abi.IOCVMSetState, nil, classed(abi.StateClock, abi.KVMClockData{Clock: 1e9})),
		{name: "VM_REPORT", req: abi.IOCVMReport, on: onVM, at: withMem, also: fromBound, right: abi.RightRun,
			arg: func(*machine) []byte { return sized(abi.VMReport{Reason: abi.ReasonPoweroff}) }},
	}
}

// routesArg is the argument of VM_SET_ROUTES.
func routesArg(routes ...abi.KVMIRQRoutingEntry) []byte {
	var list []byte
	for _, r := range routes {
		list = append(list, bytesOf(r)...)
	}
	head := abi.VMSetRoutes{Size: uint32(16 + len(list)), Routing: abi.KVMIRQRouting{Nr: uint32(len(routes))}}
	return append(bytesOf(head), list...)
}

func vcpuCommands() []command {
	vcpu := func(name string, req uintptr) command {
		return command{name: name, req: req, on: onVCPU, at: withMem, also: []stage{withVCPU, withMem, running}, bare: true}
	}
	resume := vcpu("VCPU_RESUME", abi.IOCVCPUResume)
	resume.first = func(m *machine) { _ = m.cpu.Pause() }
	all := []command{
		vcpu("VCPU_RUN", abi.IOCVCPURun), vcpu("VCPU_KICK", abi.IOCVCPUKick), vcpu("VCPU_PAUSE", abi.IOCVCPUPause), resume,
	}
	for name, p := range regsPayloads() {
		get := command{name: "VCPU_GET_REGS " + name, req: abi.IOCVCPUGetRegs, on: onVCPU, at: withMem, also: evenStopped, head: true,
			arg: func(*machine) []byte { return p.zeroed }}
		set := command{name: "VCPU_SET_REGS " + name, req: abi.IOCVCPUSetRegs, on: onVCPU, at: withMem,
			also: []stage{withVCPU, withMem, running}, head: true,
			arg: func(m *machine) []byte {
				got, _, err := newArgument(m.t).ioctl(m.cpu.FD(), abi.IOCVCPUGetRegs, p.zeroed)
				if err != nil {
					return p.zeroed // a machine that is not to be changed any more
				}
				return append([]byte(nil), got...)
			}}
		all = append(all, get, set)
	}
	return all
}

// regsPayload is one class of registers.
type regsPayload struct{ zeroed []byte } // an argument for GET

func regsPayloads() map[string]regsPayload {
	msrs := payload(abi.RegsMSRs, bytesOf(abi.KVMMSRs{NMSRs: 1}), bytesOf(abi.KVMMSREntry{Index: msrTSC}))
	return map[string]regsPayload{
		"general":  {payload(abi.RegsGeneral, bytesOf(abi.KVMRegs{}))},
		"system":   {payload(abi.RegsSystem, bytesOf(abi.KVMSregs{}))},
		"system2":  {payload(abi.RegsSystem2, bytesOf(abi.KVMSregs2{}))},
		"fpu":      {payload(abi.RegsFPU, bytesOf(abi.KVMFPU{}))},
		"xsave":    {payload(abi.RegsXsave, make([]byte, 4096))},
		"xcrs":     {payload(abi.RegsXCRs, bytesOf(abi.KVMXCRs{}))},
		"debug":    {payload(abi.RegsDebug, bytesOf(abi.KVMDebugRegs{}))},
		"msrs":     {msrs},
		"cpuid":    {payload(abi.RegsCPUID, bytesOf(abi.KVMCPUID2{}))}, // none were set
		"lapic":    {payload(abi.RegsLAPIC, bytesOf(abi.KVMLAPICState{}))},
		"mp state": {payload(abi.RegsMPState, bytesOf(abi.KVMMPState{}))},
		"events":   {payload(abi.RegsEvents, bytesOf(abi.KVMVCPUEvents{}))},
		"tsc":      {payload(abi.RegsTSCKHz, bytesOf(uint64(0)))},
	}
}

// Numbers of MSRs, from Intel's manual, volume 4.
const (
	msrSysenterCS = 0x174
	msrTSC        = 0x10
	msrUnknown    = 0xdead_0000
)
