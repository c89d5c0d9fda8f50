// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"runtime/debug"
	"strconv"

	"github.com/spf13/cobra"

	"vmctl/daemon/api"
	"vmctl/daemon/client"
)

func (p *program) hostCommand() *cobra.Command {
	return &cobra.Command{
		Use: "host", Short: "Show the host and who you are to it", Args: words(0, 0),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: p.with(func(ctx context.Context, c *client.Client, _ []string) error {
			host, err := c.Host(ctx)
			if err != nil {
				return err
			}
			who, err := c.WhoAmI(ctx)
			if err != nil {
				return err
			}
			if p.format == formatJSON {
				return p.json(struct {
					Host   *api.Host   `json:"host"`
					WhoAmI *api.WhoAmI `json:"whoami"`
				}{host, who})
			}
			return p.showHost(host, who)
		}),
	}
}

func (p *program) showHost(host *api.Host, who *api.WhoAmI) error {
	module := "not loaded: no VM can run"
	if host.Module.Present {
		module = fmt.Sprintf("ABI %d, at most %d VMs", host.Module.ABI, host.Module.MaxVMs)
		if !host.Module.KVM {
			module += ", without KVM: no VM can run"
		}
	}
	roles := make([]string, len(who.Roles))
	for i, role := range who.Roles {
		roles[i] = string(role)
	}
	return p.fields(
		[2]string{"Host", host.Hostname},
		[2]string{"Kernel", host.Kernel},
		[2]string{"CPUs", strconv.Itoa(host.CPUs)},
		[2]string{"Memory", size(host.MemoryBytes)},
		[2]string{"Module", module},
		[2]string{"vmctld", host.Version},
		[2]string{"Started", p.date(host.StartedAt)},
		[2]string{"You", joined(", ", who.Principal, joined(" ", roles...))},
	)
}

func (p *program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the version of vmctl", Args: words(0, 0), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			if p.format == formatJSON {
				return p.json(map[string]string{"version": version()})
			}
			_, err := fmt.Fprintln(p.out, "vmctl", version())
			return err
		},
	}
}

// version is what the go command recorded: a tag, or the commit.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "devel-" + s.Value[:12]
		}
	}
	return "devel"
}
