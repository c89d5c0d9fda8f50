// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// Files that devices could work on, and some that they cannot.

// filesDir is where the files of all workers are; the supervisor makes them.
const filesDir = "/tmp/fuzz"

const (
	regularFiles = 4
	loopDevices  = 2
)

func fileOps() []operation {
	file := func(name string, on kind, do func(*thread, *call) unix.Errno) operation {
		return operation{name: name, on: on, do: do, build: func(g *gen, c *call) {
			c.n = [3]uint64{g.Uint64(), g.Uint64(), g.Uint64()}
		}}
	}
	return []operation{
		file("open disk", onDisk, doOpenDisk), file("open tap", onTap, doOpenTap), file("open odd", onOdd, doOpenOdd),
		file("open event", onEvent, doOpenEvent), file("ring", onEvent, doRing), file("drop taken", onTaken, doClose),
		file("use taken", onTaken, doUseTaken), file("open nl", onNetlink, doOpenNetlink),
	}
}

// keep puts what an opening gave where the call says.
func (t *thread) keep(c *call, fd uintptr, errno unix.Errno) unix.Errno {
	if errno == 0 {
		t.pool.put(c.on, int32(fd))
	}
	return errno
}

func doOpenDisk(t *thread, c *call) unix.Errno {
	flags := [...]int{unix.O_RDONLY, unix.O_RDWR, unix.O_RDWR, unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR | unix.O_DIRECT}
	others := [...]string{"/dev/null", "/proc/self/maps", filesDir, "/dev/vmm"}
	path := t.path[:0]
	switch n := c.n[0] % 16; {
	case n < 10:
		path = strconv.AppendUint(append(path, filesDir+"/disk"...), n%regularFiles, 10)
	case n < 14:
		path = strconv.AppendUint(append(path, "/dev/loop"...), n%loopDevices, 10)
	default:
		path = append(path, others[c.n[1]%uint64(len(others))]...)
	}
	fd, errno := t.openBytes(path, flags[c.n[2]%uint64(len(flags))])
	return t.keep(c, fd, errno)
}

// openBytes opens a path that lies in the thread's own buffer.
func (t *thread) openBytes(path []byte, flags int) (uintptr, unix.Errno) {
	name := append(append(t.mem.scratch[:0], path...), 0)
	return sysN(unix.SYS_OPENAT, ^uintptr(99), addrOf(name), uintptr(flags|unix.O_CLOEXEC|unix.O_NONBLOCK))
}

const (
	iffTap        = unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_MULTI_QUEUE
	vhostSetOwner = 0xaf01
)

func doOpenTap(t *thread, c *call) unix.Errno {
	paths := [...]string{"/dev/net/tun", "/dev/net/tun", "/dev/vhost-net", "/dev/null"}
	n := c.n[0] % uint64(len(paths))
	fd, errno := t.open(paths[n], unix.O_RDWR)
	if errno == 0 && c.n[1]%8 == 0 {
		switch n {
		case 0, 1:
			m := t.mem.scratch[:40]
			clear(m)
			copy(m, "fuzz0")
			m[16], m[17] = iffTap&0xff, iffTap>>8
			sys(unix.SYS_IOCTL, fd, unix.TUNSETIFF, addrOf(m))
		case 2:
			sys(unix.SYS_IOCTL, fd, vhostSetOwner, 0)
		}
	}
	return t.keep(c, fd, errno)
}

func doOpenOdd(t *thread, c *call) unix.Errno {
	var fd uintptr
	var errno unix.Errno
	switch c.n[0] % 6 {
	case 0:
		fd, errno = sysN(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	case 1:
		fd, errno = sysN(unix.SYS_EPOLL_CREATE1, unix.EPOLL_CLOEXEC)
	case 2:
		fd, errno = sysN(unix.SYS_TIMERFD_CREATE, unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	case 3:
		fd, errno = sysN(unix.SYS_INOTIFY_INIT1, unix.IN_CLOEXEC|unix.IN_NONBLOCK)
	case 4:
		fd, errno = t.open("/dev/kvm", unix.O_RDWR)
	default:
		errno = sys(unix.SYS_PIPE2, addr(&t.mem.msg.pair), unix.O_CLOEXEC|unix.O_NONBLOCK)
		if errno == 0 {
			fd = fdOf(t.mem.msg.pair[0])
			sys(unix.SYS_CLOSE, fdOf(t.mem.msg.pair[1]))
		}
	}
	return t.keep(c, fd, errno)
}

func doOpenEvent(t *thread, c *call) unix.Errno {
	fd, errno := sysN(unix.SYS_EVENTFD2, 0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	return t.keep(c, fd, errno)
}

func doRing(t *thread, c *call) unix.Errno {
	t.mem.msg.body = [8]byte{1}
	return sys(unix.SYS_WRITE, fdOf(t.pool.get(c.on)), addr(&t.mem.msg.body), 8)
}

// doUseTaken does with a file of a backend what a monitor does: so that it is
// still in use when it is detached.
func doUseTaken(t *thread, c *call) unix.Errno {
	fd, out := fdOf(t.pool.get(c.on)), addrOf(t.mem.out)
	switch c.n[0] % 5 {
	case 0:
		return sys(unix.SYS_PREAD64, fd, out, 4096, uintptr(c.n[1]%65536))
	case 1:
		return sys(unix.SYS_PWRITE64, fd, out, 512, uintptr(c.n[1]%65536))
	case 2:
		return t.mapAt(areaAt(int(c.n[1]%areas)), areaSize, unix.PROT_READ, unix.MAP_SHARED, fd, 0)
	case 3:
		return sys(unix.SYS_FDATASYNC, fd)
	}
	return t.keepDup(c, fd)
}

func (t *thread) keepDup(c *call, fd uintptr) unix.Errno {
	dup, errno := sysN(unix.SYS_FCNTL, fd, unix.F_DUPFD_CLOEXEC, firstFD)
	if errno == 0 {
		t.pool.put(another(c.on, c.n[2]), int32(dup))
	}
	return errno
}
