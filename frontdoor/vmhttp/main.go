// SPDX-License-Identifier: Apache-2.0

// vmhttp is the front door: TLS, logins, the web interface, and the way from
// browsers to vmctld and to the consoles of VMs. It decides who somebody is,
// never what they may do.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

const usage = `usage: vmhttp [flags]           serve
       vmhttp passwd [flags] USER  set the password of a local account

vmhttp -h and vmhttp passwd -h list the flags.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "vmhttp:", err)
		}
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == "passwd" {
		return passwd(ctx, args[1:], terminal{os.Stdin, os.Stderr})
	}
	o, err := parseOptions(args)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: o.logLevel}))
	if err := harden(); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		log.Warn("running as root: the front door needs no privilege, run it as its own user")
	}
	d, err := open(ctx, o, log, os.Stdout)
	if err != nil {
		return err
	}
	return errors.Join(d.serve(ctx), d.close())
}
