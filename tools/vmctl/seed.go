// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"vmctl/daemon/api"
	"vmctl/daemon/client"
)

// seedFiles are the files of a seed, on the machine of who makes the VM.
type seedFiles struct{ userData, metaData, networkConfig string }

func (s *seedFiles) flags(flags *pflag.FlagSet) {
	flags.StringVar(&s.userData, "user-data", "", "a file here that the guest's cloud-init reads at its first boot")
	flags.StringVar(&s.metaData, "meta-data", "", "likewise; without it the guest is told the VM's uuid and name")
	flags.StringVar(&s.networkConfig, "network-config", "", "likewise; without it the guest asks DHCP")
}

// read returns the seed, or nil if no file is named.
func (s *seedFiles) read() (*api.Seed, error) {
	if *s == (seedFiles{}) {
		return nil, nil
	}
	var texts [3]string
	for i, file := range [3]struct{ flag, path string }{
		{"user-data", s.userData}, {"meta-data", s.metaData}, {"network-config", s.networkConfig},
	} {
		if file.path == "" {
			continue
		}
		var err error
		if texts[i], err = readText(file.path); err != nil {
			return nil, fmt.Errorf("--%s: %w", file.flag, err)
		}
	}
	return &api.Seed{UserData: texts[0], MetaData: texts[1], NetworkConfig: texts[2]}, nil
}

// readText reads a text as long as one of a seed can be. JSON would bend what is none.
func readText(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, api.MaxSeed+1))
	switch {
	case err != nil:
		return "", err
	case len(b) > api.MaxSeed:
		return "", fmt.Errorf("%s is larger than 64 KiB", path)
	case !utf8.Valid(b):
		return "", fmt.Errorf("%s is no text in UTF-8", path)
	}
	return string(b), nil
}

// seedLine says what a VM's seed has.
func seedLine(s *api.SeedSize) string {
	if s == nil {
		return ""
	}
	parts := []string{}
	for _, part := range []struct {
		name  string
		bytes int
	}{{"user-data", s.UserDataBytes}, {"meta-data", s.MetaDataBytes}, {"network-config", s.NetworkConfigBytes}} {
		if part.bytes > 0 {
			parts = append(parts, part.name+" "+size(int64(part.bytes)))
		}
	}
	return cmp.Or(strings.Join(parts, ", "), "uuid and name")
}

func (p *program) vmSeed() *cobra.Command {
	return &cobra.Command{
		Use: "seed VM", Short: "Show what is in a VM's seed", Args: words(1, 1), ValidArgsFunction: p.completeVM,
		Long: "Show the texts that a VM's guest reads at its first boot. They may hold secrets:\nonly who may create VMs sees them.",
		RunE: p.with(func(ctx context.Context, c *client.Client, args []string) error {
			seed, err := c.Seed(ctx, args[0])
			if err != nil {
				return err
			}
			if p.format == formatJSON {
				return p.json(seed)
			}
			return errors.Join(p.text("user-data", seed.UserData), p.text("meta-data", seed.MetaData), p.text("network-config", seed.NetworkConfig))
		}),
	}
}

// text prints a text of several lines under its name, if there is one.
func (p *program) text(name, text string) error {
	if text == "" {
		return nil
	}
	_, err := fmt.Fprintf(p.out, "--- %s\n", name)
	for line := range strings.Lines(text) {
		if err == nil {
			_, err = fmt.Fprintln(p.out, strings.TrimRight(clean(line), " "))
		}
	}
	return err
}
