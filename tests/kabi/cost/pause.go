// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

const (
	pauseCPUs   = 8
	pauseRounds = 1000
)

// pause times how long it takes until all of eight vCPUs in a tight loop stand:
// by VM_PAUSE, and as monitors do it on KVM, by immediate_exit and a signal to
// each thread.
func pause() ([]result, error) {
	ours, err := newOurs(pauseCPUs, spin)
	if err != nil {
		return nil, fmt.Errorf("/dev/vmm: %w", err)
	}
	a, err := timePauses(ours)
	if err != nil {
		return nil, fmt.Errorf("/dev/vmm: %w", err)
	}
	other, err := newRaw(pauseCPUs, spin)
	if err != nil {
		return nil, fmt.Errorf("/dev/kvm: %w", err)
	}
	b, err := timeSignals(other)
	if err != nil {
		return nil, fmt.Errorf("/dev/kvm: %w", err)
	}
	return []result{{"pause of 8 vCPUs", median(a), median(b)}}, nil
}

// let lets all vCPUs get into the guest again.
func let() { unix.Nanosleep(&unix.Timespec{Nsec: 2_000_000}, nil) }

func timePauses(g *guest) ([]float64, error) {
	var all sync.WaitGroup
	for i := range pauseCPUs {
		all.Go(func() {
			runtime.LockOSThread()
			err := g.runOnce(i)
			for errors.Is(err, unix.EINTR) { // not for ESHUTDOWN, at the end
				err = g.runOnce(i)
			}
		})
	}
	var took []float64
	for range pauseRounds {
		let()
		start := time.Now()
		_, err := g.vm.Pause(abi.PauseOperator, abi.Forever)
		for errors.Is(err, unix.EINTR) {
			_, err = g.vm.Pause(abi.PauseOperator, abi.Forever)
		}
		took = append(took, float64(time.Since(start).Nanoseconds()))
		if err := errors.Join(err, g.vm.Resume(abi.PauseOperator)); err != nil {
			return nil, err
		}
	}
	err := g.vm.Stop()
	all.Wait()
	return took, errors.Join(err, g.close())
}

// signalled is one thread of the other way.
type signalled struct {
	area *abi.KVMRun
	tid  int
	open chan bool // go on, or end
}

// timeSignals is the pause of a monitor on KVM alone: set immediate_exit, signal,
// and wait until the thread says that it is out.
func timeSignals(g *guest) ([]float64, error) {
	var all sync.WaitGroup
	var out atomic.Int64
	var ready sync.WaitGroup
	threads := make([]signalled, pauseCPUs)
	ready.Add(pauseCPUs)
	for i := range threads {
		t := &threads[i]
		area, err := g.mapRun(i)
		if err != nil {
			return nil, err
		}
		t.area, t.open = area, make(chan bool)
		all.Go(func() {
			runtime.LockOSThread()
			t.tid = unix.Gettid()
			ready.Done()
			for going := true; going; going = <-t.open {
				for t.area.ImmediateExit == 0 {
					if err := g.runOnce(i); err != nil && !errors.Is(err, unix.EINTR) {
						break
					}
				}
				out.Add(1)
			}
		})
	}
	ready.Wait()
	var took []float64
	for round := range pauseRounds {
		let()
		start := time.Now()
		for i := range threads {
			threads[i].area.ImmediateExit = 1
			if err := unix.Tgkill(unix.Getpid(), threads[i].tid, unix.SIGURG); err != nil {
				return nil, err
			}
		}
		for out.Load() != pauseCPUs {
			unix.Nanosleep(&unix.Timespec{Nsec: 10_000}, nil)
		}
		took = append(took, float64(time.Since(start).Nanoseconds()))
		out.Store(0)
		for i := range threads {
			// Not by the thread: it may come too late and take the next
			// request for this one.
			threads[i].area.ImmediateExit = 0
			threads[i].open <- round < pauseRounds-1
		}
	}
	all.Wait()
	return took, g.close()
}
