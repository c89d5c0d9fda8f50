// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// How long things may take on a slow machine with a kernel that checks itself.
const (
	stuckAfter = 2 * time.Minute  // one call, with a signal after each doubling of its time
	goneAfter  = 30 * time.Second // a killed process
	obeyWithin = 5 * time.Second
)

// fate is what comes to a worker after some calls.
type fate int

const (
	fateKill fate = iota
	fateExit
	fateExec
	fateStop       // stopped and continued
	fateStopKill   // stopped and killed
	fateFreeze     // frozen and thawed
	fateFreezeKill // frozen and killed
	fates
)

// Lives are short, as their ends are what is to be tried; stops come in between.
var fateWeights = [fates]int{30, 10, 10, 30, 6, 10, 4}

// worker is a process that the supervisor starts again and again.
type worker struct {
	*supervisor
	i      int
	rng    *rand.Rand
	board  *board
	life   int
	cmd    *exec.Cmd
	ended  chan struct{}
	fate   fate
	at     uint64 // calls of this worker, when it comes
	before time.Time
	beats  [maxThreads]uint32
	moved  [maxThreads]time.Time
	heirs  []int // descriptors that the last life sent
}

func newWorker(s *supervisor, i int) *worker {
	return &worker{supervisor: s, i: i, board: &s.boards.of[i], rng: rand.New(rand.NewPCG(s.o.seed, 1<<63|uint64(i)))}
}

// look starts the worker if it has ended, and lets its fate come.
func (w *worker) look() error {
	if w.cmd != nil {
		select {
		case <-w.ended:
			w.cmd = nil
		default:
		}
	}
	if w.cmd == nil {
		return w.start()
	}
	if stuck := w.watch(); stuck != "" {
		w.stuck = append(w.stuck, stuck)
		w.kill()
		return w.gone()
	}
	if w.board.calls.Load() < w.at {
		return nil
	}
	return w.meet()
}

// draw chooses the next fate.
func (w *worker) draw() {
	sum := 0
	for _, n := range fateWeights {
		sum += n
	}
	n := w.rng.IntN(sum)
	for f := range fates {
		if n -= fateWeights[f]; n < 0 {
			w.fate = f
			break
		}
	}
	w.at = w.board.calls.Load() + 200 + uint64(w.rng.IntN(6000))
	w.before = time.Time{}
}

// start begins a life.
func (w *worker) start() error {
	w.life++
	w.draw()
	w.board.life.Store(uint32(w.life))
	w.cmd = exec.Command("/proc/self/exe", w.o.roleArgs(w.i, w.life)...)
	w.cmd.Stdout, w.cmd.Stderr = os.Stdout, os.Stderr
	// Else the runtime sends signals of its own, one each 10 ms of a call.
	w.cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1")
	next := w.ring[w.i][0]
	previous := w.ring[(w.i+len(w.ring)-1)%len(w.ring)][1]
	for _, fd := range append([]int{w.boardFD, next, previous, w.keeper[w.i][1], w.device}, w.inherit()...) {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(dup), "")
		defer f.Close()
		w.cmd.ExtraFiles = append(w.cmd.ExtraFiles, f)
	}
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if otherNamespace(w.i) {
		all := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 65536}}
		w.cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWUSER | unix.CLONE_NEWNET
		w.cmd.SysProcAttr.UidMappings, w.cmd.SysProcAttr.GidMappings = all, all
	}
	if err := w.cmd.Start(); err != nil {
		return fmt.Errorf("start worker %d: %w", w.i, err)
	}
	w.dropHeirlooms()
	w.freezer.add(w.cmd.Process.Pid)
	ended := make(chan struct{})
	w.ended = ended
	for i := range w.moved {
		w.moved[i] = time.Now()
	}
	go func(c *exec.Cmd) {
		c.Wait()
		close(ended)
	}(w.cmd)
	return nil
}

// inherit takes what the last life left for the next: not more than a few.
func (w *worker) inherit() []int {
	body, control := make([]byte, 8), make([]byte, 256)
	for {
		_, n, _, _, err := unix.Recvmsg(w.keeper[w.i][0], body, control, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		if err != nil {
			return w.heirs
		}
		list, err := unix.ParseSocketControlMessage(control[:n])
		if err != nil || len(list) == 0 {
			continue
		}
		fds, err := unix.ParseUnixRights(&list[0])
		if err != nil {
			continue
		}
		w.heirs = append(w.heirs, fds...)
		for len(w.heirs) > most {
			unix.Close(w.heirs[0])
			w.heirs = w.heirs[1:]
		}
	}
}

func (w *worker) dropHeirlooms() {
	for _, fd := range w.heirs {
		unix.Close(fd)
	}
	w.heirs = nil
}

// meet is what the fate does.
func (w *worker) meet() error {
	pause := time.Duration(1+w.rng.IntN(40)) * time.Millisecond
	switch w.fate {
	case fateKill:
		w.kill()
		return w.gone()
	case fateExit:
		return w.order(orderExit)
	case fateExec:
		if w.before.IsZero() {
			w.life++
			w.board.life.Store(uint32(w.life))
		}
		return w.order(orderExec)
	case fateStop, fateStopKill:
		w.signal(unix.SIGSTOP)
		time.Sleep(pause)
		if w.fate == fateStopKill {
			w.kill()
			return w.gone()
		}
		w.signal(unix.SIGCONT)
	case fateFreeze, fateFreezeKill:
		w.freezer.freeze(true)
		time.Sleep(pause)
		if w.fate == fateFreezeKill {
			w.kill()
		}
		w.freezer.freeze(false)
		if w.fate == fateFreezeKill {
			return w.gone()
		}
	}
	w.draw()
	return nil
}

// order lets the worker end itself, and kills it if it does not.
func (w *worker) order(what uint32) error {
	switch {
	case w.before.IsZero():
		w.before = time.Now()
		w.board.order.Store(what)
	case what == orderExec && w.board.order.Load() == orderNone:
		w.draw() // the next life has begun
	case time.Since(w.before) > obeyWithin:
		w.kill()
		return w.gone()
	}
	return nil
}

func (w *worker) signal(s syscall.Signal) {
	// It may have ended by itself.
	_ = w.cmd.Process.Signal(s)
}

func (w *worker) kill() {
	if w.cmd != nil {
		w.signal(unix.SIGKILL)
	}
}

// gone waits for a killed worker.
func (w *worker) gone() error {
	if w.cmd == nil {
		return nil
	}
	select {
	case <-w.ended:
		return nil
	case <-time.After(goneAfter):
		return fmt.Errorf("worker %d.%d lives %v after it was killed:\n%s", w.i, w.life, goneAfter, stacks(w.cmd.Process.Pid))
	}
}

// watch returns where a thread is that has been in one call for too long.
func (w *worker) watch() string {
	for i := range w.o.threads {
		t := &w.board.threads[i]
		beat := t.beat.Load()
		if beat != w.beats[i] || beat&1 == 0 {
			w.beats[i], w.moved[i] = beat, time.Now()
		}
		if time.Since(w.moved[i]) > stuckAfter {
			return fmt.Sprintf("%d.%d.%d is in call %d, %s, for %v:\n%s", w.i, w.life, i, t.n.Load(),
				ops[t.op.Load()].name, stuckAfter, stacks(w.cmd.Process.Pid))
		}
	}
	return ""
}

// stacks shows where the kernel holds the threads of a process.
func stacks(pid int) string {
	var b strings.Builder
	dirs, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	for _, d := range dirs {
		comm, _ := os.ReadFile(d + "/comm")
		stack, _ := os.ReadFile(d + "/stack")
		fmt.Fprintf(&b, "%s %s%s", filepath.Base(d), comm, stack)
	}
	return b.String()
}
