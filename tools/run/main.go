// SPDX-License-Identifier: Apache-2.0

// Run is what `make run` calls: it starts the lab, both daemons in it, and a
// guest through the public API, and stays until Ctrl-C. With --check it types
// into the guest's console as a browser would, reads the answer and ends.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	if err := run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "run:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	flags := flag.NewFlagSet(args[0], flag.ExitOnError)
	check := flags.Bool("check", false, "use the guest's console as a browser would, then end")
	kernel := flags.String("kernel", "6.12", "the lab's kernel: 6.1, 6.12 or new")
	exec := flags.String("exec", "", "run this `command` with VMCTL_URL, VMCTL_USER, VMCTL_PASSWORD and VMCTL_VM set, then end")
	port := flags.Int("port", 8443, "TCP port on 127.0.0.1 for the front door")
	guest := flags.Bool("inside", false, "the part that runs in the lab's machine")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if *guest {
		return inside(filepath.Dir(exe), flags.Arg(0), ":8443")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o := options{bin: filepath.Dir(exe), kernel: *kernel, port: *port, check: *check, exec: *exec}
	if err := outside(ctx, o); err != nil {
		return err
	}
	if ctx.Err() != nil && (*check || *exec != "") {
		return errors.New("interrupted")
	}
	return nil
}
