// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"vmctl/daemon/api"
	"vmctl/daemon/client"
)

func (p *program) vmBalloon() *cobra.Command {
	return &cobra.Command{
		Use: "balloon VM [SIZE]", Short: "Have a VM's guest give memory back, or show what it has given", Args: words(1, 2),
		Long: "Say how much of its memory a VM's guest is to give back to the host: 512M, 2G;\nunits are binary, M if none is given. It gives what it can do without, and takes\nit back when it has to. 0 is nothing. 16M stay with it at least.\n\nWithout a size show how much it has given, and how it uses its memory.",
		Example: "  vmctl vm balloon web 512M\n" +
			"  vmctl vm balloon web",
		ValidArgsFunction: p.completeVM,
		RunE: p.with(func(ctx context.Context, c *client.Client, args []string) error {
			if len(args) == 1 {
				b, err := c.Balloon(ctx, args[0])
				if err != nil {
					return err
				}
				return p.showBalloon(b)
			}
			bytes, err := parseSize(args[1])
			if err != nil {
				return usageError{err}
			}
			vm, err := c.SetBalloon(ctx, args[0], bytes)
			if err != nil {
				return err
			}
			if p.format == formatJSON {
				return p.json(vm)
			}
			_, err = fmt.Fprintf(p.out, "%s: balloon of %s, generation %d\n", clean(vm.Name), size(vm.Spec.BalloonBytes), vm.Generation)
			return err
		}),
	}
}

func (p *program) showBalloon(b *api.Balloon) error {
	if p.format == formatJSON {
		return p.json(b)
	}
	lines := [][2]string{{"Target", size(b.TargetBytes)}, {"Given", size(b.ActualBytes)}}
	if g := b.Memory; g != nil {
		lines = append(lines, [][2]string{{"Total", size(g.TotalBytes)}, {"Free", size(g.FreeBytes)}, {"Available", size(g.AvailableBytes)},
			{"Caches", size(g.CachesBytes)}, {"Major faults", strconv.FormatInt(g.MajorFaults, 10)}}...)
	}
	return p.fields(lines...)
}

func balloonLine(bytes int64) string {
	if bytes == 0 {
		return ""
	}
	return size(bytes)
}
