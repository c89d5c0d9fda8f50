// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vmctl/daemon/api"
	"vmctl/daemon/client"
)

// tail is how many events are shown when nothing is said about it.
const tail = 100

func (p *program) eventsCommand() *cobra.Command {
	var (
		follow bool
		since  string
		vm     string
	)
	cmd := &cobra.Command{
		Use: "events", Short: "Show what happened, and go on showing it", Args: words(0, 0),
		Long: "Show the journal of events in order. Without --since these are the last 100,\n" +
			"with --follow only what happens from now on. A lost connection is taken up\n" +
			"where it ended.",
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: p.with(func(ctx context.Context, c *client.Client, _ []string) error {
			opt, err := p.eventRange(ctx, c, since, follow)
			if err != nil || !follow && opt.Until == 0 { // an empty journal
				return err
			}
			return p.showEvents(ctx, c, opt, vm)
		}),
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until interrupted")
	cmd.Flags().StringVar(&since, "since", "", "begin after this event's number")
	cmd.Flags().StringVar(&vm, "vm", "", "only events of this VM, by name or uuid")
	must(cmd.RegisterFlagCompletionFunc("vm", p.completeVM))
	return cmd
}

// eventRange asks for the newest number, to know where to begin and to end.
func (p *program) eventRange(ctx context.Context, c *client.Client, since string, follow bool) (client.EventOptions, error) {
	var opt client.EventOptions
	page, err := c.VMPage(ctx, "", 1)
	if err != nil {
		return opt, err
	}
	switch {
	case since != "":
		if opt.Since, err = strconv.ParseInt(since, 10, 64); err != nil || opt.Since < 0 {
			return opt, usageError{fmt.Errorf("--since %s: must be the number of an event", since)}
		}
	case follow:
		opt.Since = page.EventSeq
	default:
		opt.Since = max(0, page.EventSeq-tail)
	}
	if !follow {
		opt.Until = page.EventSeq
	}
	opt.Lost = func(err error, wait time.Duration) {
		fmt.Fprintf(p.errOut, "vmctl: events: %s; trying again\n", oneLine(err.Error()))
	}
	return opt, nil
}

func (p *program) showEvents(ctx context.Context, c *client.Client, opt client.EventOptions, vm string) error {
	for event, err := range c.Events(ctx, opt) {
		switch {
		case errors.Is(err, client.ErrReset):
			fmt.Fprintf(p.errOut, "vmctl: events: %s\n", oneLine(err.Error()))
			continue
		case err != nil:
			return err
		case vm != "" && (event.VM == nil || event.VM.Name != vm && event.VM.ID != vm):
			continue
		}
		if err := p.showEvent(event); err != nil {
			return err
		}
	}
	return nil
}

func (p *program) showEvent(event api.Event) error {
	if p.format == formatJSON {
		return p.jsonLine(event)
	}
	when := event.Time.In(p.now().Location()).Format("01-02 15:04:05")
	line := fmt.Sprintf("%5d  %s  %-14s  %-8s  %s", event.Seq, when, event.Kind, vmName(event.VM), eventText(event))
	_, err := fmt.Fprintln(p.out, strings.TrimRight(clean(line), " "))
	return err
}

// eventText says in some words what the data of an event holds. Data that
// does not have the form of its kind is of a newer server: it says nothing.
func eventText(event api.Event) string {
	switch event.Kind {
	case api.EventVMState:
		return sayAs(event.Data, func(d api.VMStatus) string { return string(d.State) })
	case api.EventVMStopped:
		return sayAs(event.Data, func(d api.LastStop) string { return joined(": ", stopWord(&d), d.Detail) })
	case api.EventVMReset:
		return sayAs(event.Data, func(d api.ResetData) string { return fmt.Sprintf("number %d of run %d", d.Count, d.RunID) })
	case api.EventVMUnknown:
		return sayAs(event.Data, func(d api.UnknownData) string { return fmt.Sprintf("run %d %s", d.RunID, d.Name) })
	case api.EventTaskChanged:
		return sayAs(event.Data, func(d api.Task) string {
			text := taskVerb(d.Kind) + " " + taskWord(&d)
			if d.Error != nil {
				text += ": " + d.Error.Detail
			}
			return text
		})
	case api.EventConsoleOpened, api.EventConsoleClosed:
		return sayAs(event.Data, func(d api.ConsoleData) string { return joined(", ", d.User, string(d.Mode), d.Reason) })
	case api.EventSessionStarted, api.EventSessionEnded:
		return sayAs(event.Data, func(d api.SessionData) string { return d.Principal })
	case api.EventAuthRefused:
		return sayAs(event.Data, func(d api.RefusedData) string { return joined(" ", string(d.Code), d.Method, d.Path, d.Address) })
	case api.EventHostStarted:
		return sayAs(event.Data, func(d api.StartedData) string { return joined(" ", "vmctld", d.Version) })
	case api.EventHostKernelLost:
		return sayAs(event.Data, func(d api.LostData) string { return d.Detail })
	}
	return ""
}

func sayAs[T any](data json.RawMessage, say func(T) string) string {
	var value T
	if json.Unmarshal(data, &value) != nil {
		return ""
	}
	return say(value)
}

// joined leaves out what is empty.
func joined(sep string, parts ...string) string {
	var list []string
	for _, part := range parts {
		if part != "" {
			list = append(list, part)
		}
	}
	return strings.Join(list, sep)
}
