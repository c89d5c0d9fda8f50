// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"strconv"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// What is done to descriptors by number: copied, closed, replaced, watched.

func fdOps() []operation {
	fd := func(name string, on kind, do func(*thread, *call) unix.Errno) operation {
		return operation{name: name, on: on, do: do, build: func(g *gen, c *call) {
			if g.one(4) {
				c.on = g.any()
			}
			c.n = [3]uint64{g.Uint64(), g.Uint64(), g.Uint64()}
		}}
	}
	return []operation{
		fd("open dev", onDev, doOpenDev), fd("dup", onVM, doDup), ending(fd("replace", onVM, doReplace)), ending(fd("close", onVM, doClose)),
		ending(fd("close vcpu", onVCPU, doClose)), ending(fd("close stale", onVM, doCloseStale)), fd("fcntl", onVM, doFcntl),
		fd("fdinfo", onVM, doFdinfo), fd("reopen", onVM, doReopen), fd("poll", onVM, doPoll), fd("watch", onVM, doWatch),
		fd("read write", onVM, doReadWrite), fd("steal", onVM, doSteal),
	}
}

// lowOps change much at once, and come seldom.
func lowOps() []operation {
	return []operation{
		{name: "low limit", on: onNothing, do: doLowLimit, build: buildLowLimit},
		{name: "sweep", on: onNothing, do: func(t *thread, c *call) unix.Errno { return t.sweep() }},
	}
}

// buildLowLimit leaves few free numbers for some calls.
func buildLowLimit(g *gen, c *call) {
	c.n[0] = mostFDs
	if g.step.choice < 0 {
		c.n[0], g.low = g.Uint64N(80), 10+g.IntN(40)
	}
}

func doOpenDev(t *thread, c *call) unix.Errno {
	fd, errno := t.openDevice()
	if errno == 0 {
		t.pool.put(ref{onDev, uint8(c.n[0] % uint64(used[onDev]))}, int32(fd))
	}
	return errno
}

// openDevice opens the device, or copies what was inherited.
func (t *thread) openDevice() (uintptr, unix.Errno) {
	if fd, errno := t.open(abi.DevicePath, unix.O_RDWR); errno == 0 {
		return fd, 0
	}
	return sysN(unix.SYS_FCNTL, deviceFD, unix.F_DUPFD_CLOEXEC, firstFD)
}

// open opens by path, close-on-exec and without waiting.
func (t *thread) open(path string, flags int) (uintptr, unix.Errno) {
	name := append(append(t.mem.scratch[:0], path...), 0)
	return sysN(unix.SYS_OPENAT, ^uintptr(99), addrOf(name), uintptr(flags|unix.O_CLOEXEC|unix.O_NONBLOCK))
}

// another is a place of the same kind, for a copy.
func another(r ref, n uint64) ref { return ref{r.kind, uint8(n % slots)} }

func doDup(t *thread, c *call) unix.Errno {
	fd, errno := sysN(unix.SYS_FCNTL, fdOf(t.pool.get(c.on)), unix.F_DUPFD_CLOEXEC, firstFD)
	if errno == 0 {
		t.pool.put(another(c.on, c.n[0]), int32(fd))
	}
	return errno
}

// doReplace puts a file under the number of another: whoever is about to use that
// number gets this one.
func doReplace(t *thread, c *call) unix.Errno {
	over := t.pool.get(another(c.on, c.n[0]))
	if over < firstFD {
		return unix.EBADF
	}
	return sys(unix.SYS_DUP3, fdOf(t.pool.get(c.on)), fdOf(over), unix.O_CLOEXEC)
}

func doClose(t *thread, c *call) unix.Errno { return t.pool.drop(t.pool.take(c.on)) }

// doCloseStale leaves the number in its place for a moment: it means the next file
// that gets it. Not for longer: whoever replaces it would close that file, and so
// on.
func doCloseStale(t *thread, c *call) unix.Errno {
	place := &t.pool.fds[c.on.kind][c.on.slot]
	fd := place.Load()
	errno := t.pool.drop(fd)
	nap(int64(c.n[0] % 100_000))
	place.CompareAndSwap(fd, -1)
	return errno
}

func doFcntl(t *thread, c *call) unix.Errno {
	fd := fdOf(t.pool.get(c.on))
	switch c.n[0] % 5 {
	case 0:
		return sys(unix.SYS_FCNTL, fd, unix.F_SETFL, uintptr(c.n[1])&(unix.O_NONBLOCK|unix.O_APPEND|unix.O_ASYNC|unix.O_DIRECT))
	case 1:
		return sys(unix.SYS_FCNTL, fd, unix.F_SETFD, uintptr(c.n[1]&1))
	case 2:
		return sys(unix.SYS_FCNTL, fd, unix.F_SETLEASE, uintptr(c.n[1]%3))
	case 3:
		return sys(unix.SYS_FLOCK, fd, unix.LOCK_EX|unix.LOCK_NB)
	}
	return sys(unix.SYS_FCNTL, fd, unix.F_GETFL)
}

// procPath is a path in /proc that ends with the number of a descriptor.
func (t *thread) procPath(dir string, fd int32) uintptr {
	name := append(append(t.mem.scratch[:0], "/proc/self/"...), dir...)
	name = append(strconv.AppendInt(name, int64(fd), 10), 0)
	return addrOf(name)
}

func doFdinfo(t *thread, c *call) unix.Errno {
	fd, errno := sysN(unix.SYS_OPENAT, ^uintptr(99), t.procPath("fdinfo/", t.pool.get(c.on)), unix.O_CLOEXEC)
	if errno != 0 {
		return errno
	}
	errno = sys(unix.SYS_READ, fd, addrOf(t.mem.out), 4096)
	sys(unix.SYS_CLOSE, fd)
	return errno
}

// doReopen opens by what /proc shows, which makes no second VM descriptor.
func doReopen(t *thread, c *call) unix.Errno {
	flags := [...]uintptr{unix.O_RDWR, unix.O_RDONLY, unix.O_PATH, unix.O_WRONLY}[c.n[0]%4]
	fd, errno := sysN(unix.SYS_OPENAT, ^uintptr(99), t.procPath("fd/", t.pool.get(c.on)), flags|unix.O_CLOEXEC|unix.O_NONBLOCK)
	if errno == 0 {
		t.pool.put(ref{onOdd, uint8(c.n[1] % uint64(used[onOdd]))}, int32(fd))
	}
	return errno
}

func doPoll(t *thread, c *call) unix.Errno {
	p := &t.mem.poll
	for i := range p {
		p[i] = unix.PollFd{Fd: t.pool.get(another(c.on, c.n[0]+uint64(i))), Events: int16(c.n[1])}
	}
	return sys(unix.SYS_POLL, addr(p), uintptr(len(p)), uintptr(c.n[2]%8/7))
}

// doWatch adds to the process's epoll, takes away from it, or waits for it.
func doWatch(t *thread, c *call) unix.Errno {
	t.mem.event = unix.EpollEvent{Events: uint32(c.n[1]) & (unix.EPOLLIN | unix.EPOLLHUP | unix.EPOLLET | unix.EPOLLONESHOT)}
	fd := fdOf(t.pool.get(c.on))
	switch c.n[0] % 4 {
	case 0, 1:
		return sys(unix.SYS_EPOLL_CTL, uintptr(t.epoll), unix.EPOLL_CTL_ADD, fd, addr(&t.mem.event))
	case 2:
		return sys(unix.SYS_EPOLL_CTL, uintptr(t.epoll), unix.EPOLL_CTL_DEL, fd, addr(&t.mem.event))
	}
	return sys(unix.SYS_EPOLL_WAIT, uintptr(t.epoll), addrOf(t.mem.out), 64, 0)
}

// doReadWrite makes calls that a descriptor of ours does not serve.
func doReadWrite(t *thread, c *call) unix.Errno {
	fd, out := fdOf(t.pool.get(c.on)), addrOf(t.mem.out)
	switch c.n[0] % 6 {
	case 0:
		return sys(unix.SYS_READ, fd, out, 8)
	case 1:
		return sys(unix.SYS_PREAD64, fd, out, 8, 0)
	case 2:
		return sys(unix.SYS_LSEEK, fd, 1, 0)
	case 3:
		return sys(unix.SYS_FSYNC, fd)
	case 4:
		return sys(unix.SYS_FALLOCATE, fd, 0, 0, 1)
	}
	return sys(unix.SYS_FSTAT, fd, out)
}

// doSteal takes a descriptor out of another worker, whatever it is.
func doSteal(t *thread, c *call) unix.Errno {
	pid := t.all.of[c.n[0]%uint64(t.o.workers)].pid.Load()
	pidfd, errno := sysN(unix.SYS_PIDFD_OPEN, uintptr(pid), 0)
	if errno != 0 {
		return errno
	}
	fd, errno := sysN(unix.SYS_PIDFD_GETFD, pidfd, uintptr(firstFD+c.n[1]%60), 0)
	sys(unix.SYS_CLOSE, pidfd)
	if errno == 0 {
		t.pool.put(ref{[...]kind{onVM, onVCPU, onEvent}[c.n[2]%3], uint8(c.n[2]>>8)%slots&^3 | 3}, int32(fd))
	}
	return errno
}

func doLowLimit(t *thread, c *call) unix.Errno {
	t.mem.limit = unix.Rlimit{Cur: firstFD + c.n[0], Max: firstFD + mostFDs}
	return sys(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, addr(&t.mem.limit), 0)
}

// sweep closes all of the pool, and what it has lost track of.
func (t *thread) sweep() unix.Errno {
	t.pool.clear()
	errno := sys(unix.SYS_CLOSE_RANGE, firstFD, ^uintptr(0)>>33, 0)
	if fd, errno := t.openDevice(); errno == 0 {
		t.pool.put(ref{onDev, 0}, int32(fd))
	}
	return errno
}
