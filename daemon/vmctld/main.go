// SPDX-License-Identifier: Apache-2.0

// Command vmctld runs the virtual machines of one host.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"vmctl/daemon/kern"
	"vmctl/daemon/rest"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, func(device string) module { return kern.New(device) })
	stop()
	if errors.Is(err, pflag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "vmctld:", err)
		os.Exit(1)
	}
}

// run is the program: "vmctld openapi" prints the document of its interface,
// everything else is the daemon.
func run(ctx context.Context, args []string, out io.Writer, kernel func(device string) module) error {
	if len(args) == 1 && args[0] == "openapi" {
		doc, err := rest.New(rest.Config{}).OpenAPI()
		if err != nil {
			return err
		}
		_, err = out.Write(doc)
		return err
	}
	o, err := parseFlags(args)
	if err != nil {
		return err
	}
	return serve(ctx, o, kernel(o.device))
}
