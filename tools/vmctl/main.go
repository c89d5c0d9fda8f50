// SPDX-License-Identifier: Apache-2.0

// Vmctl creates, powers and watches the virtual machines of a host, on its
// socket or from elsewhere through vmhttp. vmctl(1) describes it.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	// A reader of our output that left is an error of a write: to die of it
	// would leave the terminal as a console made it.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	p := &program{in: os.Stdin, out: os.Stdout, errOut: os.Stderr, getenv: os.Getenv, now: time.Now}
	status := p.run(ctx, os.Args[1:])
	stop()
	os.Exit(status)
}
