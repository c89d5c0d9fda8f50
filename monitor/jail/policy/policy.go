// SPDX-License-Identifier: Apache-2.0

// Command policy writes the filter of system calls that package jail loads. The
// filter is made when vmctl is built, not when a monitor starts: assembling it
// takes longer, and the tables for it more memory, than all the rest of the jail.
package main

import (
	"slices"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"

	"vmctl/abi"
	"vmctl/monitor/virtio/net"
)

// rule allows system calls, for a reason.
type rule struct {
	why   string
	calls []string
}

// rules are the calls that are allowed whatever their arguments. A descriptor
// is the only way to reach anything, and none can be opened.
var rules = []rule{
	{"scrollback, boot files, sockets that were inherited or accepted, the log",
		[]string{"read", "write", "pread64", "pwrite64", "close"}},
	{"kind and size of boot files", []string{"fstat"}},
	{"control and console sockets: messages, descriptors, new viewers", []string{"recvmsg", "sendmsg", "accept4"}},
	{"sockets of the guest whose one direction has ended", []string{"shutdown"}},
	{"waiting for descriptors", []string{"epoll_create1", "epoll_ctl", "epoll_pwait", "eventfd2"}},
	{"locks and sleeps of the runtime", []string{"futex", "nanosleep", "sched_yield", "restart_syscall"}},
	{"threads of the runtime: their number, place, signals and end",
		[]string{"sched_getaffinity", "gettid", "getpid", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "exit", "exit_group"}},
	{"disks: their size, and their data where the host refuses rings; packets where there is no vhost",
		[]string{"lseek", "preadv2", "pwritev2", "fdatasync", "fallocate"}},
	{"data of disks by rings, which do what they were restricted to", []string{"io_uring_enter"}},
	{"memory given back", []string{"munmap", "madvise", "mincore"}},
	{"time and seeds", []string{"clock_gettime", "gettimeofday", "getrandom"}},
}

// early are the calls of setting a machine up, which Seal takes away.
var early = []rule{
	{"rings of disks: made and restricted", []string{"io_uring_setup", "io_uring_register"}},
	{"the seal itself", []string{"seccomp"}},
}

// threadFlags are those that Go's runtime makes a thread with, SETTLS from its
// assembly; any other clone would be a process.
const threadFlags = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_SYSVSEM | unix.CLONE_THREAD | unix.CLONE_SETTLS | unix.CLONE_SETTLS

// commands are the ioctls of a monitor: those of the descriptors that it has,
// less what needs a right that it lacks.
var commands = []uint64{
	abi.IOCVCPURun, abi.IOCVCPUKick, abi.IOCVCPUGetRegs, abi.IOCVCPUSetRegs,
	abi.IOCGetInfo, abi.IOCVMBind, abi.IOCVMSetup, abi.IOCVCPUCreate,
	abi.IOCVMMapMemory, abi.IOCVMMapMMIO, abi.IOCVMMapIRQ, abi.IOCVMSetRoutes,
	abi.IOCVMSignal, abi.IOCVMGetBackend, abi.IOCVMGetState, abi.IOCVMSetState, abi.IOCVMReport,
}

// ofNICs are the ioctls of network cards: what the guest's driver takes, and the size
// of headers, on a tap, which they cannot make another; and on a vhost those of
// moving packets between it and guest memory.
var ofNICs = append([]uint64{unix.TUNSETOFFLOAD, unix.TUNGETVNETHDRSZ}, net.VhostCommands...)

// policy refuses with EPERM what no rule names.
func policy() seccomp.Policy {
	return seccomp.Policy{
		DefaultAction: seccomp.ActionErrno,
		Syscalls: []seccomp.SyscallGroup{
			{Action: seccomp.ActionAllow, Names: names(slices.Concat(rules, early))},
			{Action: seccomp.ActionAllow, NamesWithCondtions: conditional()},
		},
	}
}

// seal refuses what early rules name; what else is refused, policy refuses.
func seal() seccomp.Policy {
	return seccomp.Policy{
		DefaultAction: seccomp.ActionAllow,
		Syscalls:      []seccomp.SyscallGroup{{Action: seccomp.ActionErrno, Names: names(early)}},
	}
}

func names(rules []rule) (list []string) {
	for _, r := range rules {
		list = append(list, r.calls...)
	}
	slices.Sort(list)
	return list
}

// conditional are the calls whose arguments decide.
func conditional() []seccomp.NameWithConditions {
	only := func(name string, argument uint32, op seccomp.Operation, value uint64) seccomp.NameWithConditions {
		return seccomp.NameWithConditions{Name: name, Conditions: seccomp.ArgumentConditions{
			{Argument: argument, Operation: op, Value: value},
		}}
	}
	list := []seccomp.NameWithConditions{
		only("clone", 0, seccomp.Equal, threadFlags),
		// No memory becomes code.
		only("mmap", 2, seccomp.BitsNotSet, unix.PROT_EXEC),
		only("mprotect", 2, seccomp.BitsNotSet, unix.PROT_EXEC),
		// The runtime interrupts its own threads; 1 is this process's id in its
		// namespace.
		only("tgkill", 0, seccomp.Equal, 1),
		// The runtime names its mappings.
		only("prctl", 0, seccomp.Equal, unix.PR_SET_VMA),
	}
	// Flags of accepted sockets; not F_SETOWN, F_NOTIFY and their like.
	for _, c := range []uint64{unix.F_GETFD, unix.F_SETFD, unix.F_GETFL, unix.F_SETFL} {
		list = append(list, only("fcntl", 1, seccomp.Equal, c))
	}
	for _, c := range slices.Concat(commands, ofNICs) {
		list = append(list, only("ioctl", 1, seccomp.Equal, c))
	}
	return list
}
