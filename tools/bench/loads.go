// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

const (
	loadGoal = 1.0
	// loadsTime is the most that the loads of one bench may take in the lab.
	loadsTime = time.Hour
)

// load is one thing that a guest does to be measured.
type load struct {
	name      string
	count     int                    // operations of one run
	arguments func(count int) string // of the loader
}

// sample is what a load showed under one monitor, for one operation: a value of each run.
type sample struct {
	Took   []float64 // nanoseconds
	Exits  []float64
	Leaves []float64 // exits to the monitor
}

// compared is a load under both monitors.
type compared struct {
	Name, Peer  string
	Ours, Other sample
}

// side is a monitor to measure, and how a guest comes up under it.
type side struct {
	name  string
	start func() (*guest, error)
}

// loads are what is run inside of the lab, and how.
type loads struct {
	vmx, initrd, loader string
	pairs               int
	list                []load
}

func (l *loads) parse(word string, args []string) error {
	fs := flag.NewFlagSet(word, flag.ContinueOnError)
	fs.StringVar(&l.vmx, "vmx", "", "the monitor")
	fs.StringVar(&l.initrd, "initrd", "", "the guest's initramfs, with drivers")
	fs.StringVar(&l.loader, "load", "", "the guest's program")
	fs.IntVar(&l.pairs, "pairs", 5, "pairs of guests")
	err := fs.Parse(args)
	if err == nil {
		l.vmx, err = filepath.Abs(l.vmx) // it starts in another folder
	}
	return err
}

// images are what the guests boot: the machine's own kernel, and an initramfs that is
// made in a folder.
func (l *loads) images(dir string) (images, error) {
	initrd, err := withLoader(l.initrd, l.loader, dir)
	return images{kernel: "/boot/vmlinuz", initrd: initrd}, err
}

// run does all loads in one guest of each side after the other, and that again and
// again. There is one guest at a time: two would wait for each other, and KVM's counters
// are those of all.
func (l *loads) run(ctx context.Context, ours, other side) error {
	all := make([]compared, len(l.list))
	for i := range l.pairs {
		for _, s := range []side{ours, other} {
			if err := ctx.Err(); err != nil {
				return err
			}
			fmt.Fprintf(os.Stderr, "pair %d: %s\n", i+1, s.name)
			of := func(n int) *sample { return &all[n].Other }
			if s.name == ours.name {
				of = func(n int) *sample { return &all[n].Ours }
			}
			if err := l.in(s, of); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	for i := range all {
		all[i].Name, all[i].Peer = l.list[i].name, other.name
	}
	return json.NewEncoder(os.Stdout).Encode(all)
}

// in does all loads in one guest. What they showed is added to the samples.
func (l *loads) in(s side, sampleOf func(int) *sample) (err error) {
	g, err := s.start()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.end()) }()
	for i, ld := range l.list {
		// What a single operation costs is the start of the program and what it prints.
		_, one, err := g.measure(ld, 1)
		if err != nil {
			return err
		}
		took, many, err := g.measure(ld, ld.count)
		if err != nil {
			return err
		}
		per := func(i int) float64 { return (float64(many[i]) - float64(one[i])) / float64(ld.count-1) }
		of := sampleOf(i)
		of.Took, of.Exits, of.Leaves = append(of.Took, took), append(of.Exits, per(0)), append(of.Leaves, per(1))
		fmt.Fprintf(os.Stderr, "%s: %s: %.1f us; %.3f exits, %.4f to the monitor\n", s.name, ld.name, took/1e3, per(0), per(1))
	}
	return nil
}

// measure runs a load of count operations.
func (g *guest) measure(l load, count int) (took float64, exits [2]uint64, err error) {
	var before [2]uint64
	names := [2]string{allExits, memoryExits}
	for i, name := range names {
		if before[i], err = kvmCount(kvmGuests, name); err != nil {
			return 0, exits, err
		}
	}
	if took, err = g.load(l.arguments(count)); err != nil {
		return 0, exits, err
	}
	for i, name := range names {
		n, err := kvmCount(kvmGuests, name)
		if err != nil {
			return 0, exits, err
		}
		exits[i] = n - before[i]
	}
	return took, exits, nil
}

// compareLoads runs loads in the lab, and makes rows of what they showed.
func (s setup) compareLoads(ctx context.Context, name, word string) ([]row, error) {
	self, vmx := filepath.Join(s.bin, "bench"), filepath.Join(s.bin, "vmx")
	initrd, loader := filepath.Join(s.guest, "virtio.img"), filepath.Join(s.guest, "load")
	for _, f := range []string{self, vmx, initrd, loader} {
		if _, err := os.Stat(f); err != nil {
			return nil, fmt.Errorf("%w: make build guest load", err)
		}
	}
	argv := []string{self, word, "--vmx", vmx, "--initrd", initrd, "--load", loader}
	fmt.Fprintf(s.progress, "%s: %d pairs in the lab, about two minutes each\n", name, s.pairs)
	argv = append(argv, "--pairs", strconv.Itoa(s.pairs))
	s.cpus = 1 // with more the emulator loses guests now and then: see tests/run
	var all []compared
	if err := s.inLab(ctx, &all, append(s.size(), "--timeout", loadsTime.String()), argv...); err != nil {
		return nil, err
	}
	for _, c := range all {
		if len(c.Ours.Took) != s.pairs || len(c.Other.Took) != s.pairs {
			return nil, errors.New("some runs are missing")
		}
	}
	return loadRows(name, all), nil
}

// loadRows are first what a clock tells and then what does not depend on it. All is for
// one operation.
func loadRows(name string, all []compared) []row {
	var rows []row
	for _, c := range all {
		rows = append(rows, against(name+", "+c.Name, c.Peer, "us", median(c.Ours.Took)/1e3, median(c.Other.Took)/1e3, loadGoal, clockBand))
	}
	for _, c := range all {
		rows = append(rows,
			against(name+", "+c.Name, c.Peer, "exits", median(c.Ours.Exits), median(c.Other.Exits), loadGoal, 0),
			noMore(name+", "+c.Name+", to the monitor", c.Peer, "exits", median(c.Ours.Leaves), median(c.Other.Leaves)))
	}
	return rows
}
