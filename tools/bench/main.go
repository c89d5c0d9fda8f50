// SPDX-License-Identifier: Apache-2.0

// Command bench measures against the peers, prints one table, and writes
// build/bench.json. Every row runs in the lab, and where two sides are compared, in
// the same machine:
//
//	costs              of the module's interface, /dev/vmm to /dev/kvm: an exit,
//	                   making a VM, pausing one; listing 1,000 to 100
//	boot to init       wall clock, vmx to QEMU's microvm, in turns
//	private memory     of an idle vmx, beside its guest's memory
//	Debian to login    wall clock, from a disk by firmware, vmx to QEMU's q35, in turns
//	disk               of a guest, vmx to QEMU's q35 with io_uring and an I/O thread:
//	                   4 KiB at random, depth 1 and 32, and 1 MiB in sequence, reads
//	                   and writes: wall clock in turns, exits, and those of them that
//	                   go to the monitor
//	make run CHECK=1   wall clock, once
//
// Loads are told for one operation, so that less is better in every row. It ends with 1
// when a row cannot be measured or misses its goal.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// setup is where things are, relative to the checkout.
type setup struct {
	lab, bin, guest string
	kernel          string
	pairs           int
	cpus, memory    int // of the lab's machine; MiB
	progress        io.Writer
}

func main() {
	s := setup{progress: os.Stderr}
	flag.StringVar(&s.bin, "bin", "build/bin", "folder of the programs")
	flag.StringVar(&s.guest, "guest", "build/guest", "folder of what guests boot and run")
	flag.StringVar(&s.kernel, "kernel", "6.12", "kernel of the lab and of its guests")
	flag.IntVar(&s.pairs, "pairs", 5, "pairs of boots and loads")
	flag.IntVar(&s.cpus, "cpus", 2, "processors of the lab's machine")
	flag.IntVar(&s.memory, "memory", 4096, "memory of the lab's machine, in MiB")
	out := flag.String("out", "build/bench.json", "file for programs")
	flag.Parse()
	s.lab = s.bin + "/lab"
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if inside := insides[flag.Arg(0)]; inside != nil {
		err = inside(ctx, flag.Args()[1:])
	} else {
		err = run(ctx, s, flag.Args(), *out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// benches are what can be named on the command line, in order.
var benches = []struct {
	name string
	run  func(context.Context, setup) ([]row, error)
}{
	{"costs", benchCosts},
	{"boot", benchBoot},
	{"debian", benchDebian},
	{"disk", benchDisk},
	{"chain", benchChain},
}

// run measures all benches, or those that names has.
func run(ctx context.Context, s setup, names []string, out string) error {
	wanted := map[string]bool{}
	for _, n := range names {
		wanted[n] = true
	}
	var rows []row
	var errs []error
	for _, b := range benches {
		if len(names) > 0 && !wanted[b.name] {
			continue
		}
		delete(wanted, b.name)
		r, err := b.run(ctx, s)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", b.name, err))
		}
		rows = append(rows, r...)
	}
	for n := range wanted {
		errs = append(errs, fmt.Errorf("no bench %q", n))
	}
	if err := table(os.Stdout, rows); err != nil {
		return err
	}
	errs = append(errs, save(out, rows))
	for _, r := range rows {
		if !r.Met {
			errs = append(errs, fmt.Errorf("%s: goal not met", r.Name))
		}
	}
	return errors.Join(errs...)
}
