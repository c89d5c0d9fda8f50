// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

// Command fuzz gives the kernel module random commands, from several processes
// with several threads each, and ends with a table of what came of them:
//
//	CGO_ENABLED=0 go build -o build/test/fuzz ./tests/kabi/fuzz
//	build/bin/lab exec --kernel new --timeout 60m -- build/test/fuzz -calls 1000000 -seed 1
//
// It runs as root with the module loaded, and belongs into a throw-away machine:
// it opens, signals and kills what it can reach. Whether the kernel complained is
// judged by the lab; fuzz itself fails when a command never succeeded in a long
// run, when a process cannot be killed, when a call could not be interrupted, or
// when a VM is left in the end.
//
// # What is random
//
// A worker process lives for some thousand calls and is then killed, stopped and
// continued, or made to exit or exec, and another life of it begins. Each of its
// threads draws its calls from a generator of its own, seeded by -seed, the
// worker, its life and the thread. What a thread intends depends on nothing else:
// a call names descriptors by their place in a table, and what stands there is
// looked up when the call is made. So
//
//	fuzz -seed 1 -print 2.17.1
//
// prints what thread 1 of life 17 of worker 2 was about to do, without doing it.
// A thread is named like that, so that a trace of the kernel says who it was.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"time"
)

// options are the words of the command line.
type options struct {
	calls   uint64
	seed    uint64
	workers int
	threads int
	limit   time.Duration
	trace   string
	print   string
	count   int
	verbose bool
	role    string // of a worker: its own name
}

func parse() (*options, error) {
	o := new(options)
	flag.Uint64Var(&o.calls, "calls", 1_000_000, "ioctls and netlink requests to make in all")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().Unix()), "what all that is random comes from")
	flag.IntVar(&o.workers, "workers", 4, "processes")
	flag.IntVar(&o.threads, "threads", 3, "threads of each process")
	flag.DurationVar(&o.limit, "limit", 55*time.Minute, "fail when it takes longer")
	flag.StringVar(&o.trace, "trace", "", "write the calls of the worker W.LIFE.THREAD to standard error as it makes them")
	flag.StringVar(&o.print, "print", "", "print what W.LIFE.THREAD intends, and do nothing")
	flag.IntVar(&o.count, "count", 1000, "how many calls to print")
	flag.BoolVar(&o.verbose, "v", false, "say each 10 seconds how far it is, and each end of a worker")
	flag.StringVar(&o.role, "role", "", "")
	flag.Parse()
	switch {
	case flag.NArg() > 0:
		return nil, fmt.Errorf("what is %q?", flag.Arg(0))
	case o.workers < 1 || o.workers > maxWorkers || o.threads < 1 || o.threads > maxThreads:
		return nil, fmt.Errorf("1 to %d workers of 1 to %d threads can be had", maxWorkers, maxThreads)
	}
	return o, nil
}

func main() {
	o, err := parse()
	if err == nil {
		err = run(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fuzz:", err)
		os.Exit(1)
	}
}

func run(o *options) error {
	switch {
	case o.print != "":
		return printIntended(o)
	case o.role != "":
		return work(o)
	}
	if os.Geteuid() != 0 {
		return errors.New("it needs root, in a machine of its own")
	}
	return supervise(o)
}

// name is that of a thread: worker, life of the worker, thread.
type name struct{ worker, life, thread int }

func parseName(s string) (n name, err error) {
	if _, err = fmt.Sscanf(s, "%d.%d.%d", &n.worker, &n.life, &n.thread); err != nil {
		err = fmt.Errorf("%q is not WORKER.LIFE.THREAD", s)
	}
	return n, err
}

func (n name) String() string { return fmt.Sprintf("%d.%d.%d", n.worker, n.life, n.thread) }

func printIntended(o *options) error {
	n, err := parseName(o.print)
	if err != nil {
		return err
	}
	g := newGen(o.seed, n)
	for i := range o.count {
		fmt.Printf("%d %v\n", i, g.next())
	}
	return nil
}
