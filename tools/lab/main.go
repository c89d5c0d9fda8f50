// SPDX-License-Identifier: Apache-2.0

// Lab runs a command in a throw-away machine with a Debian kernel and vmm.ko
// loaded, and fails if that kernel complained. See usage, below.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"vmctl/tools/lab/guest"
)

// Exit codes beside the command's own; 128 + N where signal N ended it.
const (
	exitTimeout = 124
	exitLab     = 125
	exitKernel  = 126
)

const usage = `lab: run a command in a throw-away machine with vmm.ko loaded

  lab exec [options] -- CMD...    run CMD there as root; its folder is the checkout, read-only
                                  but for build/; streams and exit status are CMD's own
  lab shell [options]             a shell there; Ctrl-] leaves a machine that hangs
  lab prepare [--kernel K|all]    make beforehand what the first exec would make
  lab build-module [--kernel K] [--warnings] [--module DIR]
                                  build vmm.ko, print its path; --warnings: W=1 and sparse, warnings fail
  lab tree -- CMD...              run CMD in the lab's Debian 13 tree on this host, without a
                                  machine; headers of all kernels are in /usr/lib/modules
  lab checkpatch -- ARGS...       the kernel's checkpatch.pl, in that tree
  lab coccicheck DIR              the kernel's coccinelle rules over the sources in DIR
  lab kernel-path [--kernel K]    print the path of the kernel's image
  lab initrd --out FILE [--modules [--kernel K]]
                                  write a small initramfs for a guest in the machine; --modules: with
                                  the drivers of virtio devices that this kernel has as modules
  lab disk --out FILE [--kernel K]
                                  write a disk with a whole Debian for a guest in the machine, 2 GiB with holes;
                                  6.1 is Debian 12, 6.12 Debian 13 (default), new 13 with the kernel of its backports
  lab clean                       remove all prepared trees that are not in use

options of exec and shell
  --kernel 6.1|6.12|new|debug|PATH  the kernel: Debian 12's, 13's (default), the newest in 13's backports, one with
                                    sanitizers and lockdep, a folder (boot/, usr/lib/modules/) or an image file
  --icount          one CPU whose clock counts instructions: the same cost in every run
  --cpus N          (2)       --memory SIZE    (4G)
  --forward H:M     TCP port H of this host's loopback leads to port M of the machine; repeatable
  --env NAME[=V]    repeatable
  --no-module       without vmm.ko       --module DIR   with the vmm.ko of another folder with a Kbuild
  --timeout D       ends CMD (10m; 0: never)
  --dmesg FILE      keep the kernel's log        --quiet   no progress
  --cover FILE      with --kernel debug: count how often each line of vmm.ko ran, for tools/cover (exec alone)

exit status: CMD's, or 124 CMD took too long, 125 the lab could not do its part, 126 the kernel
complained during CMD (oops, BUG, WARNING, sanitizers, lockdep, stall), or the module could not be
unloaded afterwards; 127 CMD was not found. Prepared trees are kept in $LAB_CACHE, by default
vmctl-lab in the user's cache folder.
`

// lab is what all commands share.
type lab struct {
	cache    *cache
	out      *progress
	checkout string // empty outside of one
}

func main() {
	// Children die with this thread, so it must be the one that lasts.
	runtime.LockOSThread()
	if os.Getpid() == 1 && os.Args[0] == "/init" {
		guest.Main()
	}
	if len(os.Args) == 3 && os.Args[1] == insideWord {
		os.Exit(insideMain(os.Args[2]))
	}
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "lab: %v\n", err)
	}
	os.Exit(code)
}

// stopError is a signal that ends the lab, with the exit code that says so.
type stopError struct{ code int }

func (e stopError) Error() string { return "stopped" }

func run(args []string) (int, error) {
	if len(args) > 0 && (args[0] == "help" || args[0] == "--help" || args[0] == "-h") {
		fmt.Print(usage)
		return 0, nil
	}
	o, err := parseOptions(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Print(usage)
		return 0, nil
	}
	if err != nil {
		return exitLab, err
	}
	ctx, stop := stopOnSignal()
	defer stop()
	out := &progress{w: os.Stderr, quiet: o.quiet}
	c, err := openCache(out)
	if err != nil {
		return exitLab, err
	}
	l := &lab{cache: c, out: out, checkout: findCheckout()}
	code, err := l.do(ctx, o)
	var stopped stopError
	if errors.As(context.Cause(ctx), &stopped) {
		return stopped.code, nil
	}
	return code, err
}

// stopOnSignal returns a context that ends with the first signal that asks us to.
func stopOnSignal() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		if s, ok := (<-signals).(syscall.Signal); ok {
			cancel(stopError{128 + int(s)})
		}
	}()
	return ctx, func() { cancel(nil) }
}

// findCheckout is the folder with our go.mod, at or above the working folder.
func findCheckout() string {
	dir, err := os.Getwd()
	for ; err == nil; dir = filepath.Dir(dir) {
		text, readErr := os.ReadFile(filepath.Join(dir, "go.mod"))
		if readErr == nil && strings.HasPrefix(string(text), "module vmctl\n") {
			return dir
		}
		if dir == "/" {
			break
		}
	}
	return ""
}
