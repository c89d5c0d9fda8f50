// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// longRun is from how many calls on each command must have succeeded.
const longRun = 100_000

// tally is what came of one operation.
type tally struct {
	op    *operation
	of    [leaked + 1]uint64
	total uint64
	took  time.Duration
}

func (s *supervisor) tallies() []tally {
	list := make([]tally, len(ops))
	for i := range ops {
		t := &list[i]
		t.op = &ops[i]
		for w := range s.o.workers {
			t.took += time.Duration(s.boards.of[w].took[i].Load())
			for e := range t.of {
				n := uint64(s.boards.of[w].outcomes[i][e].Load())
				t.of[e] += n
				t.total += n
			}
		}
	}
	return list
}

// report prints the table: commands first, then what was done around them.
func (s *supervisor) report(w io.Writer, took time.Duration) {
	list := s.tallies()
	for _, commands := range []bool{true, false} {
		fmt.Fprintln(w)
		for i := range list {
			if list[i].op.command() == commands {
				fmt.Fprintf(w, "%-28s %8d %7d %s\n", list[i].op.name, list[i].total, list[i].took.Milliseconds(), outcomes(&list[i]))
			}
		}
	}
	var others uint64
	for i := range list {
		if !list[i].op.command() {
			others += list[i].total
		}
	}
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &used); err == nil {
		fmt.Fprintf(w, "\nworkers took %d s of user and %d s of system time\n", used.Utime.Sec, used.Stime.Sec)
	}
	n := s.calls()
	fmt.Fprintf(w, "seed %d: %d commands and %d other calls in %.0f s, %.0f commands/s; %d lives\n",
		s.o.seed, n, others, took.Seconds(), float64(n)/took.Seconds(), s.lives())
}

// outcomes lists what came, success first, then by how often.
func outcomes(t *tally) string {
	var codes []int
	for e, n := range t.of {
		if n > 0 {
			codes = append(codes, e)
		}
	}
	slices.SortStableFunc(codes, func(a, b int) int {
		switch {
		case a == 0:
			return -1
		case b == 0:
			return 1
		}
		return int(t.of[b]) - int(t.of[a])
	})
	var parts []string
	for _, e := range codes {
		parts = append(parts, fmt.Sprintf("%s %d", errnoName(unix.Errno(e)), t.of[e]))
	}
	return strings.Join(parts, ", ")
}

// judge looks for what must not be, whatever the kernel said.
func (s *supervisor) judge() error {
	var errs []error
	for _, call := range s.stuck {
		errs = append(errs, fmt.Errorf("a call that no signal interrupts: %s", call))
	}
	var never []string
	for _, t := range s.tallies() {
		if t.of[leaked] > 0 {
			errs = append(errs, fmt.Errorf("%s: %d results that are no errno of user space", t.op.name, t.of[leaked]))
		}
		if t.op.command() && t.of[0] == 0 && !mayFail[t.op.name] {
			never = append(never, t.op.name)
		}
	}
	if len(never) > 0 && s.calls() >= longRun {
		errs = append(errs, fmt.Errorf("never succeeded: %s", strings.Join(never, ", ")))
	}
	return errors.Join(errs...)
}

// mayFail are commands that a host may never grant.
var mayFail = map[string]bool{"unknown": true, "NETLINK unknown": true}
