// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// What a worker inherits: the boards, its ends of three sockets, the device, which
// it may have no right to open, and behind them descriptors of VMs.
const (
	boardsFD = 3 + iota
	nextFD   // to the next worker
	previousFD
	keeperFD // to the supervisor, which hands on what comes to the next life
	deviceFD
	heirloomFD
)

// process is what the threads of a worker share.
type process struct {
	o       *options
	n       name
	pid     int
	all     *boards
	board   *board
	pool    pool
	common  []byte // arguments that several threads write at a time
	image   int    // memory file: what areas begin with, then single bytes
	epoll   int
	threads []*thread
}

// work is the life of a worker. It ends by a kill, an exit or an exec.
func work(o *options) error {
	n, err := parseName(o.role + ".0")
	if err != nil {
		return err
	}
	p := &process{o: o, n: n, pid: os.Getpid()}
	p.pool.clear()
	if err := p.prepare(); err != nil {
		return fmt.Errorf("worker %v: %w", n, err)
	}
	late := newLateHandler()
	for i := range o.threads {
		t, err := newThread(p, name{n.worker, n.life, i}, late)
		if err != nil {
			return err
		}
		// The life before may have ended in a call.
		t.show.beat.Store(t.show.beat.Load()&^1 + 2)
		p.threads = append(p.threads, t)
	}
	p.adopt()
	if err := p.fill(); err != nil {
		return fmt.Errorf("worker %v: %w", n, err)
	}
	runtime.GOMAXPROCS(o.threads + 3)
	for _, t := range p.threads {
		go t.run()
	}
	go p.nudge()
	if late.fd >= 0 {
		go late.serve()
	}
	return p.obey()
}

// prepare takes what is inherited, and all that a worker needs beside its pool.
func (p *process) prepare() error {
	// The runtime opens descriptors for its timers with the first of them.
	time.Sleep(time.Microsecond)
	debug.SetGCPercent(400)
	// Nobody waits for forked children, nor wants to hear of closed pipes.
	signal.Ignore(unix.SIGCHLD, unix.SIGPIPE)
	var err error
	if p.all, err = mapBoards(boardsFD); err != nil {
		return err
	}
	p.board = &p.all.of[p.n.worker]
	p.board.pid.Store(int32(p.pid))
	p.board.order.Store(orderNone)
	if p.common, err = anonymous(pageSize); err != nil {
		return err
	}
	if err := reserveZone(); err != nil {
		return err
	}
	if p.image, err = newImage(); err != nil {
		return err
	}
	p.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	return err
}

// adopt moves what was inherited, or kept over an exec, into the pool.
func (p *process) adopt() {
	i := 0
	for fd := heirloomFD; fd < firstFD+mostFDs; fd++ {
		var info struct {
			abi.Payload
			abi.VMInfo
		}
		info.Size, info.Class = uint32(unsafe.Sizeof(info)), abi.InfoVM
		if _, err := abi.Ioctl(fd, abi.IOCGetInfo, unsafe.Pointer(&info)); err != nil {
			continue
		}
		moved, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, firstFD)
		if err == nil {
			unix.Close(fd)
			p.pool.put(ref{onVM, uint8(i%groups*perGroup + perGroup - 1)}, int32(moved))
			i++
		}
	}
}

// fill takes every number below firstFD, so that the pool gets none of them, and
// gives up rights if this worker is to have none.
func (p *process) fill() error {
	for {
		fd, err := unix.FcntlInt(boardsFD, unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if fd >= firstFD {
			unix.Close(fd)
			break
		}
	}
	lim := unix.Rlimit{Cur: firstFD + mostFDs, Max: firstFD + mostFDs}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return err
	}
	for i := range uint8(used[onDev]) {
		fd, err := unix.FcntlInt(deviceFD, unix.F_DUPFD_CLOEXEC, firstFD)
		if err != nil {
			return err
		}
		p.pool.put(ref{onDev, i}, int32(fd))
	}
	if p.nobody() {
		return unix.Setresuid(nobody, nobody, nobody)
	}
	return nil
}

// nobody is the user of a worker without rights.
const nobody = 65534

// Workers differ: one is nobody, one has a thread in a network of its own, one is
// root in a user and network namespace of its own.
func (p *process) nobody() bool      { return p.n.worker%4 == 1 }
func (p *process) otherNet() bool    { return p.n.worker%4 == 2 }
func otherNamespace(worker int) bool { return worker%4 == 3 }

// obey does what the supervisor orders.
func (p *process) obey() error {
	for {
		nap(10_000_000)
		switch p.board.order.Load() {
		case orderExit:
			sys(unix.SYS_EXIT_GROUP, 0)
		case orderExec:
			return p.exec()
		}
	}
}

// exec begins the next life with the same process, and with some descriptors that
// are not closed by it.
func (p *process) exec() error {
	for i := range uint8(slots) {
		if fd := p.pool.get(ref{onVM, i}); i%3 == 0 && fd >= 0 {
			sys(unix.SYS_FCNTL, fdOf(fd), unix.F_SETFD, 0)
		}
	}
	args := append([]string{"fuzz"}, p.o.roleArgs(p.n.worker, int(p.board.life.Load()))...)
	return errors.Join(errors.New("exec"), unix.Exec("/proc/self/exe", args, os.Environ()))
}

// roleArgs are the words that make the program a worker.
func (o *options) roleArgs(worker, life int) []string {
	return []string{
		"-role", fmt.Sprintf("%d.%d", worker, life), "-seed", fmt.Sprint(o.seed), "-workers", fmt.Sprint(o.workers),
		"-threads", fmt.Sprint(o.threads), "-trace", o.trace,
	}
}
