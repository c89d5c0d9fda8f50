// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"vmctl/daemon/api"
	"vmctl/daemon/client"
)

func (p *program) vmAttachDisk() *cobra.Command {
	cmd := p.device("attach-disk VM FILE[,OPTION]...", "Add a disk to a VM, also while it runs", "attached",
		func(c *client.Client, ctx context.Context, vm, what string) (*api.Task, error) {
			disk, err := parseDisk(what)
			if err != nil {
				return nil, usageError{err}
			}
			return c.AttachDisk(ctx, vm, disk)
		})
	cmd.Long = cmd.Short + ": its guest finds it at once.\nFILE and its options are those of --disk of vm create."
	cmd.Example = "  vmctl vm attach-disk web data.img,serial=data,bytes=50M"
	return cmd
}

// ofGuest is how a device goes.
const ofGuest = `
A guest that runs is asked to let go of it. One that has not within 30 seconds
is asked still: it goes as soon as the guest has, is reset, or ends.`

func (p *program) vmDetachDisk() *cobra.Command {
	cmd := p.device("detach-disk VM FILE", "Take a disk from a VM", "detached", (*client.Client).DetachDisk)
	cmd.Long = cmd.Short + ". Its file stays.\n" + ofGuest
	cmd.ValidArgsFunction = p.completeDevice(func(vm *api.VM) (names []string) {
		for _, d := range vm.Spec.Disks {
			named, _ := d.Named()
			names = append(names, named.Path)
		}
		return names
	})
	return cmd
}

func (p *program) vmAttachNIC() *cobra.Command {
	cmd := p.device("attach-nic VM BRIDGE[,OPTION]...", "Add a network card to a VM, also while it runs", "attached",
		func(c *client.Client, ctx context.Context, vm, what string) (*api.Task, error) {
			nic, err := parseNIC(what)
			if err != nil {
				return nil, usageError{err}
			}
			return c.AttachNIC(ctx, vm, nic)
		})
	cmd.Long = cmd.Short + ": its guest finds it\nat once. BRIDGE and its options are those of --nic of vm create."
	cmd.Example = "  vmctl vm attach-nic web br0,tx-bytes=10M"
	return cmd
}

func (p *program) vmDetachNIC() *cobra.Command {
	cmd := p.device("detach-nic VM MAC", "Take the network card with that address from a VM", "detached", (*client.Client).DetachNIC)
	cmd.Long = cmd.Short + ".\n" + ofGuest
	cmd.ValidArgsFunction = p.completeDevice(func(vm *api.VM) (names []string) {
		for _, n := range vm.Spec.NICs {
			names = append(names, n.MAC)
		}
		return names
	})
	return cmd
}

// device makes a command for a device that comes or goes.
func (p *program) device(use, short, done string, ask func(c *client.Client, ctx context.Context, vm, what string) (*api.Task, error)) *cobra.Command {
	var w waiting
	cmd := &cobra.Command{
		Use: use, Short: short, Args: words(2, 2), ValidArgsFunction: p.completeDevice(func(*api.VM) []string { return nil }),
		RunE: p.with(func(ctx context.Context, c *client.Client, args []string) error {
			task, err := ask(c, ctx, args[0], args[1])
			if err != nil {
				return err
			}
			if task, err = w.end(ctx, c, task); err != nil {
				return err
			}
			name, _, _ := strings.Cut(args[1], ",")
			return p.told(args[0], name+" "+done, task)
		}),
	}
	w.flags(cmd)
	return cmd
}

// completeDevice completes a VM, and then one of what it has.
func (p *program) completeDevice(of func(*api.VM) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		switch len(args) {
		case 0:
			return p.completeVM(cmd, args, word)
		case 1:
		default:
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		p.complete(cmd, func(ctx context.Context, c *client.Client) {
			if vm, err := c.VM(ctx, args[0]); err == nil {
				for _, name := range of(vm) {
					names = append(names, clean(name))
				}
			}
		})
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
