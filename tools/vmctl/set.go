// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"vmctl/daemon/api"
	"vmctl/daemon/client"
)

const limitHelp = `Limits are what a device does in a second at the most: bytes=SIZE, ops=NUMBER
of requests, and burst=TIME, for how long it saves what it did not use (100ms).
Those of a network card are rx-bytes, rx-ops and rx-burst for what the guest
receives, and the same with tx- for what it sends; down is a link that is down.`

// limitWords are the words of a limit, behind rx- or tx- for a network card.
var limitWords = []string{"bytes", "ops", "burst"}

func isLimit(key string) bool { return slices.Contains(limitWords, key) }

// setLimit takes in one word of a limit.
func setLimit(l **api.RateLimit, key, value string) (err error) {
	if *l == nil {
		*l = new(api.RateLimit)
	}
	switch key {
	case "bytes":
		(*l).BytesPerSecond, err = parseSize(value)
	case "ops":
		(*l).OpsPerSecond, err = strconv.ParseInt(value, 10, 64)
	default:
		var d time.Duration
		d, err = time.ParseDuration(value)
		(*l).BurstMillis = int(d.Milliseconds())
	}
	if err != nil {
		return fmt.Errorf("%q is no value of %s", value, key)
	}
	return nil
}

// limitNIC takes in one word of the limits of a network card.
func limitNIC(n *api.NICSpec, word string) error {
	key, value, ok := strings.Cut(word, "=")
	if ok {
		if of, found := strings.CutPrefix(key, "rx-"); found && isLimit(of) {
			return setLimit(&n.ReceiveLimit, of, value)
		}
		if of, found := strings.CutPrefix(key, "tx-"); found && isLimit(of) {
			return setLimit(&n.SendLimit, of, value)
		}
	}
	return fmt.Errorf("%q is neither mac=ADDRESS nor down nor a limit", word)
}

// limitLine says of a limit what setLimit takes.
func limitLine(prefix string, l *api.RateLimit) (line string) {
	if l == nil {
		return ""
	}
	if l.BytesPerSecond != 0 {
		line += "," + prefix + "bytes=" + strings.ReplaceAll(size(l.BytesPerSecond), " ", "")
	}
	if l.OpsPerSecond != 0 {
		line += "," + prefix + "ops=" + strconv.FormatInt(l.OpsPerSecond, 10)
	}
	if l.BurstMillis != 0 {
		line += "," + prefix + "burst=" + (time.Duration(l.BurstMillis) * time.Millisecond).String()
	}
	return line
}

// parseAll reads the values of a flag that may be repeated; a single empty one is none.
func parseAll[T any](flag string, texts []string, parse func(string) (T, error)) (all []T, err error) {
	if len(texts) == 1 && texts[0] == "" {
		return nil, nil
	}
	for _, text := range texts {
		v, err := parse(text)
		if err != nil {
			return nil, usageError{fmt.Errorf("%s %s: %w", flag, text, err)}
		}
		all = append(all, v)
	}
	return all, nil
}

// setFlags are what vm set can change.
type setFlags struct {
	name, kernel, initrd, cmdline, memory string
	vsock, console                        string
	onReset, onOff, onCrash               string
	vcpus                                 int
	disks, nics                           []string // whole lists
	diskLimits, nicLimits, links          []string
}

func (p *program) vmSet() *cobra.Command {
	var f setFlags
	cmd := &cobra.Command{
		Use: "set VM [flags]", Short: "Change a VM", Args: words(1, 1),
		Long: "Change a VM. What is not named stays. While it is up or saved no more than\nlimits, links, --on-poweroff and --on-crash can change; the guest goes on.\n\n" +
			"--disk and --nic take the place of all disks or network cards, as vm create\nhas them; '' is none. --disk-limit and --nic-limit take the place of all limits\nof the one with that number, from 0 on.\n\n" + limitHelp,
		Example: "  vmctl vm set web --vcpus 4 --memory 2G\n" +
			"  vmctl vm set web --disk-limit 0,bytes=50M,ops=1000\n" +
			"  vmctl vm set web --disk-limit 0        no limit any more\n" +
			"  vmctl vm set web --nic-limit 0,tx-bytes=10M --link 1=down",
		ValidArgsFunction: p.completeVM,
	}
	flags := cmd.Flags()
	flags.StringVar(&f.name, "name", "", "another name")
	flags.IntVar(&f.vcpus, "vcpus", 0, "number of virtual CPUs")
	flags.StringVar(&f.memory, "memory", "", "guest memory: 512M, 2G; units are binary, M if none is given")
	flags.StringVar(&f.kernel, "kernel", "", "kernel (bzImage or PVH ELF), a path in the host's boot folder; '' boots from its disks")
	flags.StringVar(&f.initrd, "initrd", "", "initial RAM disk, likewise; '' for none")
	flags.StringVar(&f.cmdline, "cmdline", "", "kernel command line; '' for none")
	flags.StringArrayVar(&f.disks, "disk", nil, "all disks: FILE[,OPTION]...; may be repeated")
	flags.StringArrayVar(&f.nics, "nic", nil, "all network cards: BRIDGE[,mac=ADDRESS][,OPTION]...; may be repeated")
	flags.StringArrayVar(&f.diskLimits, "disk-limit", nil, "limit of a disk: NUMBER[,LIMIT]...; may be repeated")
	flags.StringArrayVar(&f.nicLimits, "nic-limit", nil, "limits of a network card: NUMBER[,LIMIT]...; may be repeated")
	flags.StringArrayVar(&f.links, "link", nil, "link of a network card: NUMBER=up or NUMBER=down; may be repeated")
	flags.StringVar(&f.vsock, "vsock", "", "sockets between the guest and the host, with a CID or --vsock=auto; --vsock='' for none")
	flags.Lookup("vsock").NoOptDefVal = anyCID
	flags.StringVar(&f.console, "console", "", "the guest's device that is the console: serial or virtio")
	flags.StringVar(&f.onReset, "on-reset", "", "what a reset by the guest does: restart or stop")
	flags.StringVar(&f.onOff, "on-poweroff", "", "what a power-off by the guest leads to: stop or restart")
	flags.StringVar(&f.onCrash, "on-crash", "", "what a crash leads to: stop or restart, ever later")
	must(cmd.RegisterFlagCompletionFunc("console", fixed(string(api.ConsoleSerial), string(api.ConsoleVirtio))))
	for _, name := range []string{"on-poweroff", "on-crash"} {
		must(cmd.RegisterFlagCompletionFunc(name, fixed(string(api.EndStop), string(api.EndRestart))))
	}
	must(cmd.RegisterFlagCompletionFunc("on-reset", fixed(string(api.ResetRestart), string(api.ResetStop))))
	cmd.RunE = p.with(func(ctx context.Context, c *client.Client, args []string) error {
		vm, err := c.VM(ctx, args[0])
		if err != nil {
			return err
		}
		patch, err := f.patch(flags, vm.Spec)
		if err != nil {
			return usageError{err}
		}
		if len(patch) == 0 && f.name == "" {
			return usageError{errors.New("nothing is to change: see vmctl vm set --help")}
		}
		if vm, err = c.ChangeVM(ctx, vm.ID, vm.Generation, api.VMChange{Name: f.name, Spec: patch}); err != nil {
			return err
		}
		if p.format == formatJSON {
			return p.json(vm)
		}
		_, err = fmt.Fprintf(p.out, "%s: changed, generation %d\n", clean(vm.Name), vm.Generation)
		return err
	})
	return cmd
}

// patch is the change that the flags ask for.
func (f *setFlags) patch(flags *pflag.FlagSet, now api.VMSpec) (map[string]any, error) {
	patch, boot := make(map[string]any), make(map[string]any)
	put := func(flag string, in map[string]any, field string, value any) {
		if flags.Changed(flag) {
			in[field] = value
		}
	}
	put("vcpus", patch, "vcpus", f.vcpus)
	put("console", patch, "console", f.console)
	put("on-reset", patch, "onReset", f.onReset)
	put("on-poweroff", patch, "onPoweroff", f.onOff)
	put("on-crash", patch, "onCrash", f.onCrash)
	put("kernel", boot, "kernel", f.kernel)
	put("initrd", boot, "initrd", f.initrd)
	put("cmdline", boot, "cmdline", f.cmdline)
	if len(boot) > 0 {
		patch["boot"] = boot
	}
	if flags.Changed("memory") {
		bytes, err := parseSize(f.memory)
		if err != nil {
			return nil, fmt.Errorf("--memory: %w", err)
		}
		patch["memoryBytes"] = bytes
	}
	vsock, err := parseVsock(f.vsock)
	if err != nil {
		return nil, err
	}
	put("vsock", patch, "vsock", vsock)
	if err := f.devices(flags, &now); err != nil {
		return nil, err
	}
	if flags.Changed("disk") || flags.Changed("disk-limit") {
		patch["disks"] = now.Disks
	}
	if flags.Changed("nic") || flags.Changed("nic-limit") || flags.Changed("link") {
		patch["nics"] = now.NICs
	}
	return patch, nil
}

// devices makes the devices of a spec those that the flags ask for.
func (f *setFlags) devices(flags *pflag.FlagSet, spec *api.VMSpec) (err error) {
	if flags.Changed("disk") {
		if spec.Disks, err = parseAll("--disk", f.disks, parseDisk); err != nil {
			return err
		}
	}
	if flags.Changed("nic") {
		if spec.NICs, err = parseAll("--nic", f.nics, parseNIC); err != nil {
			return err
		}
	}
	for _, text := range f.diskLimits {
		words := strings.Split(text, ",")
		i, err := deviceNumber("--disk-limit", words[0], len(spec.Disks))
		if err != nil {
			return err
		}
		spec.Disks[i].Limit = nil
		for _, w := range words[1:] {
			key, value, ok := strings.Cut(w, "=")
			if !ok || !isLimit(key) {
				return fmt.Errorf("--disk-limit %s: %q is none of bytes=SIZE, ops=NUMBER and burst=TIME", text, w)
			}
			if err := setLimit(&spec.Disks[i].Limit, key, value); err != nil {
				return fmt.Errorf("--disk-limit %s: %w", text, err)
			}
		}
	}
	for _, text := range f.nicLimits {
		words := strings.Split(text, ",")
		i, err := deviceNumber("--nic-limit", words[0], len(spec.NICs))
		if err != nil {
			return err
		}
		n := &spec.NICs[i]
		n.ReceiveLimit, n.SendLimit = nil, nil
		for _, w := range words[1:] {
			if err := limitNIC(n, w); err != nil {
				return fmt.Errorf("--nic-limit %s: %w", text, err)
			}
		}
	}
	for _, text := range f.links {
		number, link, _ := strings.Cut(text, "=")
		i, err := deviceNumber("--link", number, len(spec.NICs))
		if err != nil {
			return err
		}
		if link != "up" && link != "down" {
			return fmt.Errorf("--link %s: neither NUMBER=up nor NUMBER=down", text)
		}
		spec.NICs[i].LinkDown = link == "down"
	}
	return nil
}

// deviceNumber reads the number of a device.
func deviceNumber(flag, text string, n int) (int, error) {
	i, err := strconv.Atoi(text)
	if err != nil || i < 0 || i >= n {
		return 0, fmt.Errorf("%s: the VM has no device %q of that kind; they are numbered from 0 on", flag, text)
	}
	return i, nil
}
