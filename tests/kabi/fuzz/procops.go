// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// Signals between threads, forks, and changes of who a thread is.

func processOps() []operation {
	process := func(name string, do func(*thread, *call) unix.Errno) operation {
		return operation{name: name, on: onVM, do: do, build: func(g *gen, c *call) {
			c.n = [3]uint64{g.Uint64(), g.Uint64(), g.Uint64()}
		}}
	}
	return []operation{process("signal", doSignal), process("fork", doFork), process("change user", doChangeUser)}
}

func doSignal(t *thread, c *call) unix.Errno {
	signals := [...]unix.Signal{unix.SIGURG, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH}
	return t.signal(int(c.n[0]%uint64(len(t.threads))), signals[c.n[1]%4])
}

// doChangeUser makes this thread nobody, or root again. Other threads are not
// asked: rights belong to threads.
func doChangeUser(t *thread, c *call) unix.Errno {
	euid := uintptr(0)
	if c.n[0]%3 == 0 {
		euid = nobody
	}
	return sys(unix.SYS_SETRESUID, ^uintptr(0), euid, ^uintptr(0))
}

// unshareNet gives the first thread of some workers a network of its own, in
// which there is no family.
func (t *thread) unshareNet() {
	if t.otherNet() && t.n.thread == 0 {
		sys(unix.SYS_UNSHARE, unix.CLONE_NEWNET)
	}
}

// forkWork is what a forked child does. It is prepared before: the child has one
// thread, and locks of the runtime may be held by threads that it has not.
type forkWork struct {
	vm, cpu uintptr
	info    uintptr // argument of GET_INFO
	regs    uintptr // of VCPU_GET_REGS
	run     uintptr // a run area
	image   uintptr
	mode    uint64
}

// doFork forks a child that has copies of all descriptors and mappings, tries
// them, and ends. Nobody waits for it. No signal may come in between: the child
// could not handle it.
func doFork(t *thread, c *call) unix.Errno {
	m := t.mem
	m.info.Payload = abi.Payload{Size: uint32(unsafe.Sizeof(m.info)), Class: abi.InfoVM}
	m.fork = forkWork{
		vm: fdOf(t.pool.get(c.on)), cpu: fdOf(t.pool.get(ref{onVCPU, c.on.slot})), info: addr(&m.info),
		regs: addr(&m.regs), run: uintptr(runAt(int(c.on.slot))), image: uintptr(t.image), mode: c.n[0],
	}
	m.regs.Payload = abi.Payload{Size: uint32(unsafe.Sizeof(m.regs)), Class: abi.RegsGeneral}
	m.signals = [2]uint64{^uint64(0), 0}
	sys(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, addr(&m.signals[0]), addr(&m.signals[1]), 8)
	errno := fork(&m.fork)
	sys(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, addr(&m.signals[1]), 0, 8)
	return errno
}

// fork returns in the parent alone. It and what it calls need no stack beyond
// what there is: a stack cannot grow in the child.
//
//go:nosplit
//go:norace
func fork(w *forkWork) unix.Errno {
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		return errno
	}
	unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0)
	for i := uint64(0); i < 1+w.mode%3; i++ {
		unix.RawSyscall(unix.SYS_IOCTL, w.vm, abi.IOCGetInfo, w.info)
		unix.RawSyscall(unix.SYS_IOCTL, w.cpu, abi.IOCVCPURun, 0)
		unix.RawSyscall(unix.SYS_IOCTL, w.cpu, abi.IOCVCPUGetRegs, w.regs)
		unix.RawSyscall(unix.SYS_IOCTL, w.cpu, abi.IOCVCPUKick, 0)
		unix.RawSyscall6(unix.SYS_PWRITE64, w.image, w.run, 64, scratchAt, 0, 0)
		unix.RawSyscall6(unix.SYS_PREAD64, w.image, w.run+1, 1, zeroAt, 0, 0)
		if w.mode&8 != 0 {
			unix.RawSyscall(unix.SYS_MUNMAP, w.run, pageSize, 0)
		}
		if w.mode&16 != 0 {
			unix.RawSyscall6(unix.SYS_MMAP, w.run, runSize, unix.PROT_READ, unix.MAP_SHARED|unix.MAP_FIXED, w.cpu, 0)
		}
		if w.mode&32 != 0 {
			unix.RawSyscall(unix.SYS_CLOSE, w.vm, 0, 0)
		}
	}
	for {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}
