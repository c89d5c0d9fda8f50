// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Memory of guests and run areas. All of it is touched by the kernel alone, on
// behalf of pread and pwrite: what another thread has unmapped meanwhile is then
// an error and not a fault.

// What lies in the memory file behind the image: a byte of 0, a byte of 1, and
// room to copy to.
const (
	zeroAt    = areaSize
	oneAt     = areaSize + 1
	scratchAt = areaSize + pageSize
	imageSize = areaSize + 2*pageSize
)

func reserveZone() error {
	_, errno := sysN(unix.SYS_MMAP, zoneBase, zoneSize, unix.PROT_NONE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE|unix.MAP_FIXED_NOREPLACE, ^uintptr(0), 0)
	if errno == unix.EEXIST {
		// The heap of this process began there, by chance.
		return errors.Join(errno, unix.Exec("/proc/self/exe", os.Args, os.Environ()))
	}
	if errno != 0 {
		return errno
	}
	for i := range areas {
		errno = sys(unix.SYS_MMAP, uintptr(areaAt(i)), areaSize, unix.PROT_READ|unix.PROT_WRITE,
			unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED, ^uintptr(0), 0)
		if errno != 0 {
			return errno
		}
	}
	return nil
}

func newImage() (int, error) {
	fd, err := unix.MemfdCreate("image", unix.MFD_CLOEXEC)
	if err != nil {
		return -1, err
	}
	if err := unix.Ftruncate(fd, imageSize); err != nil {
		return -1, err
	}
	if _, err := unix.Pwrite(fd, append(image(), 0, 1), 0); err != nil {
		return -1, err
	}
	return fd, nil
}

// mapAt maps over whatever is there.
func (t *thread) mapAt(at uint64, size, prot, flags, fd, off uintptr) unix.Errno {
	return sys(unix.SYS_MMAP, uintptr(at), size, prot, flags|unix.MAP_FIXED, fd, off)
}

func areaOps() []operation {
	area := func(name string, do func(*thread, *call) unix.Errno) operation {
		return operation{name: name, on: onNothing, do: do, build: func(g *gen, c *call) {
			c.n = [3]uint64{g.Uint64N(areas), g.Uint64(), g.Uint64()}
			if g.step.choice >= 0 {
				c.n = [3]uint64{uint64(g.step.choice), 0, 0}
			}
		}}
	}
	run := func(name string, do func(*thread, *call) unix.Errno) operation {
		return operation{name: name, on: onVCPU, do: do, build: func(g *gen, c *call) {
			c.n = [3]uint64{uint64(c.on.slot), g.Uint64(), g.Uint64()}
			if g.step.choice >= 0 {
				c.n = [3]uint64{uint64(c.on.slot), 0, 0}
			}
		}}
	}
	return []operation{
		area("programs", doPrograms), area("remap area", doRemapArea), area("protect area", doProtectArea), area("drop area", doDropArea),
		run("map run", doMapRun), run("unmap run", doUnmapRun), run("move run", doMoveRun), run("protect run", doProtectRun),
		run("touch run", doTouchRun), run("immediate exit", doImmediateExit),
	}
}

func doPrograms(t *thread, c *call) unix.Errno {
	return sys(unix.SYS_PREAD64, uintptr(t.image), uintptr(areaAt(int(c.n[0]))), areaSize, 0)
}

// doRemapArea puts other memory under a guest.
func doRemapArea(t *thread, c *call) unix.Errno {
	at, rw := areaAt(int(c.n[0])), uintptr(unix.PROT_READ|unix.PROT_WRITE)
	switch c.n[1] % 4 {
	case 0, 1:
		return t.mapAt(at, areaSize, rw, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, ^uintptr(0), 0)
	case 2:
		return t.mapAt(at, areaSize, rw, unix.MAP_SHARED|unix.MAP_ANONYMOUS, ^uintptr(0), 0)
	}
	// Private, so that the image stays what it is.
	return t.mapAt(at, areaSize, rw, unix.MAP_PRIVATE, uintptr(t.image), 0)
}

func doProtectArea(t *thread, c *call) unix.Errno {
	prots := [...]uintptr{unix.PROT_READ | unix.PROT_WRITE, unix.PROT_READ | unix.PROT_WRITE, unix.PROT_READ, unix.PROT_NONE}
	return sys(unix.SYS_MPROTECT, uintptr(areaAt(int(c.n[0]))), areaSize, prots[c.n[1]%4])
}

func doDropArea(t *thread, c *call) unix.Errno {
	at := uintptr(areaAt(int(c.n[0])))
	switch c.n[1] % 4 {
	case 0:
		return sys(unix.SYS_MUNMAP, at, areaSize)
	case 1:
		return sys(unix.SYS_MADVISE, at, areaSize, unix.MADV_FREE)
	}
	return sys(unix.SYS_MADVISE, at+uintptr(c.n[2]%16)*pageSize, pageSize, unix.MADV_DONTNEED)
}

// doMapRun maps a run area, mostly as it should be.
func doMapRun(t *thread, c *call) unix.Errno {
	size, prot, flags, off := uintptr(runSize), uintptr(unix.PROT_READ|unix.PROT_WRITE), uintptr(unix.MAP_SHARED), uintptr(0)
	if c.n[1]%4 == 3 {
		size, off = pageSize*uintptr(1+c.n[2]%5), pageSize*uintptr(c.n[2]>>8%4)
		prot, flags = uintptr(c.n[2]>>16)&7, 1+uintptr(c.n[2]>>24)&1
	}
	return t.mapAt(runAt(int(c.n[0])), size, prot, flags, fdOf(t.pool.get(c.on)), off)
}

func doUnmapRun(t *thread, c *call) unix.Errno {
	at, size := uintptr(runAt(int(c.n[0]))), uintptr(runSize)
	if c.n[1]%2 == 1 {
		at, size = at+pageSize*uintptr(c.n[2]%3), pageSize
	}
	return sys(unix.SYS_MUNMAP, at, size)
}

// doMoveRun moves, grows or shrinks a run area, or copies it.
func doMoveRun(t *thread, c *call) unix.Errno {
	from, to := uintptr(runAt(int(c.n[0]))), uintptr(runAt(int(c.n[1]%slots)))
	sizes := [...]uintptr{0, pageSize, runSize, 2 * runSize}
	return sys(unix.SYS_MREMAP, from, sizes[c.n[2]%4], sizes[1+c.n[2]>>8%3], unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, to)
}

func doProtectRun(t *thread, c *call) unix.Errno {
	return sys(unix.SYS_MPROTECT, uintptr(runAt(int(c.n[0])))+pageSize*uintptr(c.n[1]%3), pageSize, uintptr(c.n[2]&7))
}

// doTouchRun reads from a run area, or writes what lies behind the exit.
func doTouchRun(t *thread, c *call) unix.Errno {
	at := uintptr(runAt(int(c.n[0]))) + uintptr(c.n[1]%runSize)
	if c.n[2]%4 == 0 {
		return sys(unix.SYS_PREAD64, uintptr(t.image), at, uintptr(1+c.n[2]>>8%64), uintptr(c.n[2]>>16%areaSize))
	}
	return sys(unix.SYS_PWRITE64, uintptr(t.image), at, 64, scratchAt)
}

// doImmediateExit sets or clears the second byte of a run area.
func doImmediateExit(t *thread, c *call) unix.Errno {
	return sys(unix.SYS_PREAD64, uintptr(t.image), uintptr(runAt(int(c.n[0])))+1, 1, zeroAt+uintptr(c.n[1]%4/3))
}
