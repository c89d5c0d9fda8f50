// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

// options are the words of one command line.
type options struct {
	command  string
	kernel   string
	icount   bool
	cpus     int
	memory   int // MiB
	forwards []forward
	env      []string
	noModule bool
	module   string
	warnings bool
	timeout  time.Duration
	dmesg    string
	cover    string
	out      string
	modules  bool
	quiet    bool
	argv     []string
}

// Limits of the machine: what QEMU's q35 and a developer's host can do.
const (
	maxCPUs   = 64
	minMemory = 256
	maxMemory = 1 << 20
)

// commands lists the options that each command takes.
var commands = map[string]string{
	"exec":         "kernel icount cpus memory forward env no-module module timeout dmesg cover quiet",
	"shell":        "kernel icount cpus memory forward env no-module module dmesg quiet",
	"prepare":      "kernel quiet",
	"build-module": "kernel module warnings quiet",
	"tree":         "quiet",
	"kernel-path":  "kernel quiet",
	"initrd":       "kernel out modules quiet",
	"disk":         "kernel out quiet",
	"checkpatch":   "quiet",
	"clean":        "",
	"coccicheck":   "quiet",
}

// takesArgv are the commands that end with a command line of their own.
var takesArgv = map[string]bool{"exec": true, "shell": true, "tree": true, "checkpatch": true, "coccicheck": true}

// parseOptions reads the command line without the program's name.
func parseOptions(args []string) (*options, error) {
	if len(args) == 0 {
		return nil, errors.New("which command? see: lab help")
	}
	o := &options{command: args[0]}
	allowed, ok := commands[o.command]
	if !ok {
		return nil, fmt.Errorf("no command %q: see: lab help", o.command)
	}
	fs := o.flags(strings.Fields(allowed))
	if err := fs.Parse(args[1:]); err != nil {
		return nil, err
	}
	o.argv = fs.Args()
	return o, o.check()
}

func (o *options) flags(allowed []string) *flag.FlagSet {
	all := flag.NewFlagSet("", flag.ContinueOnError)
	all.StringVar(&o.kernel, "kernel", defaultKernel, "")
	all.BoolVar(&o.icount, "icount", false, "")
	all.IntVar(&o.cpus, "cpus", 0, "")
	all.Func("memory", "", o.setMemory)
	all.Func("forward", "", o.addForward)
	all.Func("env", "", o.addEnv)
	all.BoolVar(&o.noModule, "no-module", false, "")
	all.StringVar(&o.module, "module", "", "")
	all.BoolVar(&o.warnings, "warnings", false, "")
	all.DurationVar(&o.timeout, "timeout", 10*time.Minute, "")
	all.StringVar(&o.dmesg, "dmesg", "", "")
	all.StringVar(&o.cover, "cover", "", "")
	all.StringVar(&o.out, "out", "", "")
	all.BoolVar(&o.modules, "modules", false, "")
	all.BoolVar(&o.quiet, "quiet", false, "")
	fs := flag.NewFlagSet("lab "+o.command, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	for _, name := range allowed {
		fs.Var(all.Lookup(name).Value, name, "")
	}
	return fs
}

func (o *options) check() error {
	switch {
	case o.command == "exec" && len(o.argv) == 0, o.command == "tree" && len(o.argv) == 0:
		return fmt.Errorf("lab %s: no command: give one after --", o.command)
	case len(o.argv) > 0 && !takesArgv[o.command]:
		return fmt.Errorf("lab %s: takes no %q", o.command, o.argv[0])
	case o.icount && o.cpus > 1:
		return errors.New("--icount counts the instructions of one CPU: leave out --cpus")
	case o.cpus < 0 || o.cpus > maxCPUs:
		return fmt.Errorf("--cpus %d: 1 to %d can be had", o.cpus, maxCPUs)
	case o.timeout < 0:
		return fmt.Errorf("--timeout %v: 0 is none, and less than none is not to be had", o.timeout)
	case o.noModule && o.module != "":
		return errors.New("--module and --no-module exclude each other")
	case o.cover != "" && (o.kernel != debugKernel || o.noModule):
		return errors.New("--cover wants --kernel debug, which counts the lines of the module")
	case (o.command == "initrd" || o.command == "disk") && o.out == "":
		return fmt.Errorf("lab %s: --out FILE says where to", o.command)
	}
	if o.cpus == 0 {
		o.cpus = 2
		if o.icount {
			o.cpus = 1
		}
	}
	if o.memory == 0 {
		o.memory = 4096
	}
	return nil
}

// setMemory reads MiB, or a number with M or G behind it.
func (o *options) setMemory(s string) error {
	number, unit := strings.TrimRight(s, "MGiB"), 1
	switch strings.TrimSuffix(strings.TrimPrefix(s, number), "iB") {
	case "", "M":
	case "G":
		unit = 1024
	default:
		return fmt.Errorf("%q is not a size such as 4096, 4096M or 4G", s)
	}
	n, err := strconv.Atoi(number)
	if err != nil || n <= 0 || n > maxMemory/unit || n*unit < minMemory {
		return fmt.Errorf("%q: %d MiB to %d GiB can be had", s, minMemory, maxMemory>>10)
	}
	o.memory = n * unit
	return nil
}

func (o *options) addForward(s string) error {
	host, guest, ok := strings.Cut(s, ":")
	h, err1 := strconv.ParseUint(host, 10, 16)
	g, err2 := strconv.ParseUint(guest, 10, 16)
	if !ok || err1 != nil || err2 != nil || h == 0 || g == 0 {
		return fmt.Errorf("%q is not HOSTPORT:MACHINEPORT", s)
	}
	o.forwards = append(o.forwards, forward{uint16(h), uint16(g)})
	return nil
}

// addEnv takes NAME=VALUE, or a NAME whose value is taken from here.
func (o *options) addEnv(s string) error {
	name, _, ok := strings.Cut(s, "=")
	if name == "" {
		return fmt.Errorf("%q is not NAME or NAME=VALUE", s)
	}
	if !ok {
		s += "=" + os.Getenv(name)
	}
	o.env = append(o.env, s)
	return nil
}
