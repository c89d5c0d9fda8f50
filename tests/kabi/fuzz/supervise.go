// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// lookEvery is how often the supervisor looks at its workers.
const lookEvery = 10 * time.Millisecond

// supervisor keeps workers alive until enough calls were made.
type supervisor struct {
	o       *options
	boards  *boards
	boardFD int
	device  int
	ring    [][2]int // sockets from each worker to the next
	keeper  [][2]int // sockets from each worker to us: [0] is ours
	workers []*worker
	family  uint16
	started time.Time
	said    time.Time
	stuck   []string // calls that could not be interrupted
	freezer *freezer
}

func supervise(o *options) error {
	fmt.Printf("seed %d, %d workers of %d threads, %d calls\n", o.seed, o.workers, o.threads, o.calls)
	s := &supervisor{o: o, started: time.Now(), said: time.Now()}
	end, err := s.prepare()
	defer end()
	if err != nil {
		return err
	}
	err = s.loop()
	took := time.Since(s.started)
	err = errors.Join(err, s.endAll())
	s.report(os.Stdout, took)
	err = errors.Join(err, s.judge())
	s.letGo()
	return errors.Join(err, s.nothingLeft())
}

// letGo closes what workers had too: somebody may have attached it to a VM.
func (s *supervisor) letGo() {
	unix.Close(s.device)
	unix.Close(s.boardFD)
	s.boards.unmap()
	s.boards = nil
}

// prepare makes what workers share. The function undoes it.
func (s *supervisor) prepare() (func(), error) {
	var undo []func()
	end := func() {
		for _, f := range undo {
			defer f()
		}
	}
	// Calls of a worker that took the console with it end here too.
	signal.Ignore(unix.SIGPIPE)
	var err error
	if s.boards, s.boardFD, err = newBoards(); err != nil {
		return end, err
	}
	if s.device, err = unix.Open(abi.DevicePath, unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return end, fmt.Errorf("%s: %w", abi.DevicePath, err)
	}
	if err := s.findFamily(); err != nil {
		return end, err
	}
	undoFiles, err := makeFiles()
	undo = append(undo, undoFiles)
	if err != nil {
		return end, err
	}
	s.freezer = newFreezer()
	undo = append(undo, s.freezer.remove)
	for range s.o.workers {
		for _, list := range []*[][2]int{&s.ring, &s.keeper} {
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return end, err
			}
			*list = append(*list, pair)
		}
	}
	undo = append(undo, s.closeSockets)
	for i := range s.o.workers {
		s.workers = append(s.workers, newWorker(s, i))
	}
	return end, nil
}

func (s *supervisor) closeSockets() {
	for _, pair := range append(s.ring, s.keeper...) {
		unix.Close(pair[0])
		unix.Close(pair[1])
	}
	s.ring, s.keeper = nil, nil
}

// calls is how many commands were given so far.
func (s *supervisor) calls() (n uint64) {
	for i := range s.o.workers {
		n += s.boards.of[i].calls.Load()
	}
	return n
}

func (s *supervisor) loop() error {
	for s.calls() < s.o.calls {
		if time.Since(s.started) > s.o.limit {
			return fmt.Errorf("%d of %d calls in %v", s.calls(), s.o.calls, s.o.limit)
		}
		for _, w := range s.workers {
			if err := w.look(); err != nil {
				return err
			}
		}
		if s.o.verbose && time.Since(s.said) > 10*time.Second {
			s.said = time.Now()
			fmt.Printf("%6.0f s  %8d calls  %5d lives\n", time.Since(s.started).Seconds(), s.calls(), s.lives())
		}
		time.Sleep(lookEvery)
	}
	return nil
}

func (s *supervisor) lives() (n int) {
	for _, w := range s.workers {
		n += w.life
	}
	return n
}

// endAll kills every worker. One that does not go is stuck in the kernel.
func (s *supervisor) endAll() error {
	var errs []error
	for _, w := range s.workers {
		w.kill()
	}
	for _, w := range s.workers {
		errs = append(errs, w.gone())
		w.dropHeirlooms()
	}
	s.closeSockets()
	return errors.Join(errs...)
}
