// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"vmctl/daemon/api"
	"vmctl/daemon/client"
	"vmctl/monitor/console/proto"
)

// consoleOptions is how a console is shown.
type consoleOptions struct {
	readOnly  bool
	take      bool
	noHistory bool
	waitFor   *regexp.Regexp
	limit     time.Duration
}

func (p *program) consoleCommand() *cobra.Command {
	var (
		opt     consoleOptions
		waitFor string
	)
	cmd := &cobra.Command{
		Use: "console VM", Short: "Open a VM's serial console", Args: words(1, 1),
		Long: "Open a VM's serial console, with what it printed before. On a terminal Ctrl-]\n" +
			"and then q or . leaves. One viewer types, all others watch; Ctrl-] t takes the\n" +
			"keyboard over.\n\n" +
			"Where the input is no terminal it is typed as it is, and what the console\n" +
			"prints is shown until it closes, --wait-for matches or --timeout ends.",
		Example: "  vmctl console web\n" +
			"  printf 'uptime\\n' |\n" +
			"      vmctl console web --no-history --wait-for 'load average' --timeout 10s",
		ValidArgsFunction: p.completeVM,
		RunE: p.with(func(ctx context.Context, c *client.Client, args []string) error {
			if waitFor != "" {
				re, err := regexp.Compile("(?m)" + waitFor)
				if err != nil {
					return usageError{fmt.Errorf("--wait-for: %w", err)}
				}
				opt.waitFor = re
			}
			return p.console(ctx, c, args[0], opt)
		}),
	}
	flags := cmd.Flags()
	flags.BoolVar(&opt.readOnly, "read-only", false, "watch, never type")
	flags.BoolVar(&opt.take, "take", false, "take the keyboard over from who has it")
	flags.BoolVar(&opt.noHistory, "no-history", false, "only what is printed from now on")
	flags.StringVar(&waitFor, "wait-for", "", "end with status 0 when the output matches this regular expression")
	flags.DurationVar(&opt.limit, "timeout", 0, "end after so long; with --wait-for that is an error")
	cmd.MarkFlagsMutuallyExclusive("read-only", "take")
	return cmd
}

func (p *program) console(ctx context.Context, c *client.Client, vm string, opt consoleOptions) error {
	mode := api.ConsoleReadWrite
	if opt.readOnly {
		mode = api.ConsoleReadOnly
	}
	token, err := c.ConsoleToken(ctx, vm, mode)
	if err != nil {
		return err
	}
	var (
		l  link
		ok proto.OK
	)
	if c.Remote() {
		l, ok, err = dialWeb(ctx, c, vm, token.Token)
	} else {
		l, ok, err = dialSocket(ctx, token.Socket, token.Token)
	}
	if err != nil {
		return err
	}
	defer l.close()
	if !ok.Writer && !opt.readOnly && !opt.take && !isTerminal(p.in) {
		return errors.New("another viewer has the keyboard: what is to be typed would be lost; give --take or --read-only")
	}
	v := &view{p: p, link: l, opt: opt, me: ok.Viewer, next: ok.Offset, mayType: make(chan struct{}),
		outbox: make(chan func() error, outboxMax)}
	if opt.noHistory {
		v.skip = ok.Offset
	} else {
		v.next = 0
	}
	v.wrote(ok.Writer)
	return v.run(ctx, fmt.Sprintf("%s of %s", clean(token.Console), clean(vm)))
}
