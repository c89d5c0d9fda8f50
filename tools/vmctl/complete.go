// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vmctl/daemon/client"
)

// Completion asks the server. It must never hang or print an error into the
// command line that somebody is writing.
const (
	completionLimit = 2 * time.Second
	completionMax   = 1000
)

func (p *program) completeVM(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if many := strings.HasSuffix(cmd.Use, "..."); !many && len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	p.complete(cmd, func(ctx context.Context, c *client.Client) {
		for vm, err := range c.VMs(ctx) {
			if err != nil || len(names) == completionMax {
				return
			}
			if !slices.Contains(args, vm.Name) {
				names = append(names, clean(vm.Name)+"\t"+string(vm.Status.State))
			}
		}
	})
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (p *program) completeTask(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var ids []string
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	p.complete(cmd, func(ctx context.Context, c *client.Client) {
		for task, err := range c.Tasks(ctx, client.TaskFilter{}) {
			if err != nil || len(ids) == 50 {
				return
			}
			ids = append(ids, clean(task.ID)+"\t"+clean(taskVerb(task.Kind)+" "+vmName(task.VM)+" "+string(task.State)))
		}
	})
	return ids, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}

func (p *program) complete(cmd *cobra.Command, ask func(context.Context, *client.Client)) {
	c, err := p.connect()
	if err != nil {
		return
	}
	defer c.Close()
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completionLimit)
	defer cancel()
	ask(ctx, c)
}

func fixed(words ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
}

// must is for calls that fail only when a flag's name here is wrong.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
