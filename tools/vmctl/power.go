// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"vmctl/daemon/api"
	"vmctl/daemon/client"
)

// waiting says whether a verb waits for the end of its task.
type waiting struct {
	no    bool
	limit time.Duration
}

func (w *waiting) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&w.no, "no-wait", false, "do not wait for the end of the task")
	cmd.Flags().DurationVar(&w.limit, "timeout", 0, "wait at most so long: 30s, 2m (default: no limit)")
}

// end waits for a task unless told not to. A task that failed is an error.
func (w *waiting) end(ctx context.Context, c *client.Client, task *api.Task) (*api.Task, error) {
	if w.no || task.Ended() {
		return task, failed(task)
	}
	if w.limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, w.limit, goesOn{fmt.Sprintf("not done after %s", w.limit), task.ID})
		defer cancel()
	}
	done, err := c.WaitTask(ctx, task.ID)
	switch cause := context.Cause(ctx); {
	case err == nil:
	case errors.As(cause, new(goesOn)):
		return nil, cause
	case cause != nil:
		return nil, goesOn{"interrupted", task.ID}
	default:
		return nil, err
	}
	return done, failed(done)
}

func failed(task *api.Task) error {
	if task.State == api.TaskFailed {
		return taskError{task}
	}
	return nil
}

func (p *program) vmOn() *cobra.Command {
	return p.power("on VM...", "Power VMs on", "on", (*client.Client).PowerOn)
}

func (p *program) vmOff() *cobra.Command {
	return p.power("off VM...", "Power VMs off at once, as if the plug were pulled", "off", (*client.Client).PowerOff)
}

func (p *program) vmReset() *cobra.Command {
	return p.power("reset VM...", "Reset running VMs; consoles stay open", "reset", (*client.Client).Reset)
}

func (p *program) vmShutdown() *cobra.Command {
	return p.power("shutdown VM...", "Press the power button of running VMs", "power button pressed", (*client.Client).Shutdown)
}

func (p *program) vmPause() *cobra.Command {
	return p.power("pause VM...", "Pause running VMs: no instruction of theirs begins any more", "paused", (*client.Client).Pause)
}

func (p *program) vmResume() *cobra.Command {
	return p.power("resume VM...", "Let paused VMs go on", "running", (*client.Client).Resume)
}

func (p *program) vmSave() *cobra.Command {
	return p.power("save VM...", "Write running VMs down and stop them; on goes on from there", "saved", (*client.Client).Save)
}

func (p *program) vmSnapshot() *cobra.Command {
	return p.disk("snapshot VM [DISK]", "Keep what a disk of a VM has now; the VM goes on above it", "kept", (*client.Client).Snapshot)
}

func (p *program) vmMerge() *cobra.Command {
	return p.disk("merge VM [DISK]", "Merge the newest snapshot of a disk into the one behind it", "merged", (*client.Client).Merge)
}

// disk makes a command that asks something of a disk, which is the VM's first unless its
// place is given.
func (p *program) disk(use, short, done string, ask func(*client.Client, context.Context, string, int) (*api.Task, error)) *cobra.Command {
	var w waiting
	cmd := &cobra.Command{
		Use: use, Short: short, Args: words(1, 2), ValidArgsFunction: p.completeVM,
		RunE: p.with(func(ctx context.Context, c *client.Client, args []string) error {
			disk := 0
			if len(args) > 1 {
				var err error
				if disk, err = strconv.Atoi(args[1]); err != nil || disk < 0 || disk >= api.MaxDisks {
					return usageError{fmt.Errorf("%q is not the place of a disk, from 0 to %d", args[1], api.MaxDisks-1)}
				}
			}
			task, err := ask(c, ctx, args[0], disk)
			if err != nil {
				return err
			}
			if task, err = w.end(ctx, c, task); err != nil {
				return err
			}
			return p.told(args[0], fmt.Sprintf("disk %d %s", disk, done), task)
		}),
	}
	w.flags(cmd)
	return cmd
}

func (p *program) vmDelete() *cobra.Command {
	cmd := p.power("delete VM...", "Delete VMs that are off", "deleted", (*client.Client).DeleteVM)
	cmd.Aliases = []string{"rm"}
	return cmd
}

// power makes a command that asks something of VMs, one after the other. The
// first that fails ends it.
func (p *program) power(use, short, done string, ask func(*client.Client, context.Context, string) (*api.Task, error)) *cobra.Command {
	var w waiting
	cmd := &cobra.Command{
		Use: use, Short: short, Args: words(1, 1000), ValidArgsFunction: p.completeVM,
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, vm := range args {
				one := func(ctx context.Context, c *client.Client, args []string) error {
					task, err := ask(c, ctx, args[0])
					if err != nil {
						return err
					}
					if task, err = w.end(ctx, c, task); err != nil {
						return err
					}
					return p.told(args[0], done, task)
				}
				if err := p.with(one)(cmd, []string{vm}); err != nil {
					return err
				}
			}
			return nil
		},
	}
	w.flags(cmd)
	return cmd
}

func (p *program) told(vm, done string, task *api.Task) error {
	if p.format == formatJSON {
		return p.jsonLine(task)
	}
	text := done
	if !task.Ended() {
		text = "task " + task.ID
	}
	_, err := fmt.Fprintf(p.out, "%s: %s\n", clean(vm), clean(text))
	return err
}
