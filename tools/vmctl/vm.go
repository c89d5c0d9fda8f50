// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"vmctl/daemon/api"
	"vmctl/daemon/client"
)

func (p *program) vmCommand() *cobra.Command {
	return p.group(&cobra.Command{Use: "vm", Short: "Create, list, power and delete VMs"},
		p.vmList(), p.vmShow(), p.vmSeed(), p.vmCreate(), p.vmSet(), p.vmDelete(), p.vmOn(), p.vmOff(), p.vmShutdown(), p.vmReset(), p.vmPause(), p.vmResume(), p.vmSave(),
		p.vmSnapshot(), p.vmMerge(), p.vmAttachDisk(), p.vmDetachDisk(), p.vmAttachNIC(), p.vmDetachNIC(), p.vmBalloon())
}

func (p *program) vmList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List VMs by name", Args: words(0, 0),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: p.with(func(ctx context.Context, c *client.Client, _ []string) error {
			vms := []api.VM{}
			for vm, err := range c.VMs(ctx) {
				if err != nil {
					return err
				}
				vms = append(vms, vm)
			}
			if p.format == formatJSON {
				return p.json(vms)
			}
			rows := make([][]string, len(vms))
			for i, vm := range vms {
				rows[i] = []string{vm.Name, string(vm.Status.State), p.age(vm.Status.Since), strconv.Itoa(vm.Spec.VCPUs),
					size(vm.Spec.MemoryBytes), stopWord(vm.Status.LastStop)}
			}
			return p.table([]string{"NAME", "STATE", "SINCE", "VCPUS", "MEMORY", "LAST STOP"}, rows)
		}),
	}
}

// stopWord is a reason and who vouches for it.
func stopWord(s *api.LastStop) string {
	switch {
	case s == nil:
		return ""
	case s.Claimed:
		return string(s.Reason) + " (claimed)"
	}
	return string(s.Reason)
}

func (p *program) vmShow() *cobra.Command {
	return &cobra.Command{
		Use: "show VM", Short: "Show one VM, by name or uuid", Args: words(1, 1), ValidArgsFunction: p.completeVM,
		RunE: p.with(func(ctx context.Context, c *client.Client, args []string) error {
			vm, err := c.VM(ctx, args[0])
			if err != nil {
				return err
			}
			return p.showVM(vm)
		}),
	}
}

func (p *program) showVM(vm *api.VM) error {
	if p.format == formatJSON {
		return p.json(vm)
	}
	run := ""
	if vm.Status.RunID != 0 {
		run = strconv.FormatUint(vm.Status.RunID, 10)
	}
	allowed := make([]string, len(vm.Status.Allowed))
	for i, verb := range vm.Status.Allowed {
		allowed[i] = string(verb)
	}
	disks := make([]string, len(vm.Spec.Disks))
	for i, d := range vm.Spec.Disks {
		disks[i] = diskLine(d)
	}
	nics := make([]string, len(vm.Spec.NICs))
	for i, n := range vm.Spec.NICs {
		nics[i] = nicLine(n)
	}
	return p.fields(
		[2]string{"Name", vm.Name},
		[2]string{"Id", vm.ID},
		[2]string{"State", fmt.Sprintf("%s since %s (%s)", vm.Status.State, p.date(vm.Status.Since), p.age(vm.Status.Since))},
		[2]string{"Run", run},
		[2]string{"Saved", p.savedLine(vm.Status.Saved)},
		[2]string{"VCPUs", strconv.Itoa(vm.Spec.VCPUs)},
		[2]string{"Memory", size(vm.Spec.MemoryBytes)},
		[2]string{"Balloon", balloonLine(vm.Spec.BalloonBytes)},
		[2]string{"Kernel", cmp.Or(vm.Spec.Boot.Kernel, "none: it boots from its disks")},
		[2]string{"Initrd", vm.Spec.Boot.Initrd},
		[2]string{"Cmdline", vm.Spec.Boot.Cmdline},
		[2]string{"Disks", strings.Join(disks, ", ")},
		[2]string{"Networks", strings.Join(nics, ", ")},
		[2]string{"Seed", seedLine(vm.Seed)},
		[2]string{"Vsock", vsockLine(vm.Spec.Vsock)},
		[2]string{"Console", string(vm.Spec.Console)},
		[2]string{"On reset", string(vm.Spec.OnReset)},
		[2]string{"On poweroff", string(vm.Spec.OnPoweroff)},
		[2]string{"On crash", string(vm.Spec.OnCrash)},
		[2]string{"Restart", p.restartLine(vm.Status)},
		[2]string{"Last stop", p.stopLine(vm.Status.LastStop)},
		[2]string{"Allowed", strings.Join(allowed, " ")},
		[2]string{"Generation", strconv.FormatInt(vm.Generation, 10)},
		[2]string{"Created", p.date(vm.CreatedAt)},
		[2]string{"Updated", p.date(vm.UpdatedAt)},
	)
}

func (p *program) restartLine(st api.VMStatus) string {
	if st.RestartAt == nil {
		return ""
	}
	return fmt.Sprintf("at %s, the %d. in a row; vm off keeps it off", p.date(*st.RestartAt), st.Restarts)
}

func (p *program) savedLine(s *api.Saved) string {
	if s == nil {
		return ""
	}
	return fmt.Sprintf("%s, %s on the host; vm on goes on from there, vm off forgets it", p.date(s.At), size(s.Bytes))
}

func (p *program) stopLine(s *api.LastStop) string {
	if s == nil {
		return ""
	}
	line := fmt.Sprintf("%s at %s", stopWord(s), p.date(s.At))
	if s.Detail != "" {
		line += ": " + s.Detail
	}
	return line
}

// diskLine says of a disk what --disk takes, and how many snapshots it has.
func diskLine(d api.DiskSpec) string {
	d, snapshots := d.Named()
	line := d.Path
	if d.ReadOnly {
		line += ",ro"
	}
	if d.Serial != "" {
		line += ",serial=" + d.Serial
	}
	if d.Format != "" {
		line += ",format=" + string(d.Format)
	}
	for _, b := range d.Backing {
		line += ",backing=" + cmp.Or(string(b.Format), string(api.FormatRaw)) + ":" + b.Path
	}
	line += limitLine("", d.Limit)
	if snapshots > 0 {
		line += fmt.Sprintf(" (snapshots: %d)", snapshots)
	}
	return line
}

// nicLine says of a network card what --nic takes.
func nicLine(n api.NICSpec) string {
	line := n.Bridge + ",mac=" + n.MAC + limitLine("rx-", n.ReceiveLimit) + limitLine("tx-", n.SendLimit)
	if n.LinkDown {
		line += ",down"
	}
	return line
}

func vsockLine(v *api.VsockSpec) string {
	if v == nil {
		return ""
	}
	return "cid " + strconv.FormatInt(v.CID, 10)
}

// anyCID is what --vsock without a number means.
const anyCID = "auto"

// parseVsock reads a CID, anyCID, or nothing for no sockets.
func parseVsock(text string) (*api.VsockSpec, error) {
	switch text {
	case "":
		return nil, nil
	case anyCID:
		return &api.VsockSpec{}, nil
	}
	cid, err := strconv.ParseInt(text, 10, 64)
	if err != nil || cid < api.MinCID || cid > api.MaxCID {
		return nil, fmt.Errorf("--vsock %s: not a CID from %d to %d", text, api.MinCID, int64(api.MaxCID))
	}
	return &api.VsockSpec{CID: cid}, nil
}

// parseDisk reads FILE[,ro][,serial=TEXT][,format=FORMAT][,backing=FORMAT:FILE]...: a
// file's name has no comma.
func parseDisk(text string) (api.DiskSpec, error) {
	words := strings.Split(text, ",")
	d := api.DiskSpec{Path: words[0]}
	if d.Path == "" {
		return d, errors.New("no file")
	}
	for _, w := range words[1:] {
		key, value, ok := strings.Cut(w, "=")
		switch {
		case w == "ro":
			d.ReadOnly = true
		case ok && key == "serial":
			d.Serial = value
		case ok && key == "format":
			d.Format = api.DiskFormat(value)
		case ok && key == "backing":
			format, path, ok := strings.Cut(value, ":")
			if !ok || path == "" {
				return d, fmt.Errorf("%q is not backing=FORMAT:FILE", w)
			}
			d.Backing = append(d.Backing, api.BackingSpec{Path: path, Format: api.DiskFormat(format)})
		case ok && isLimit(key):
			if err := setLimit(&d.Limit, key, value); err != nil {
				return d, err
			}
		default:
			return d, fmt.Errorf("%q is neither ro nor serial=TEXT, format=FORMAT, backing=FORMAT:FILE or a limit", w)
		}
	}
	return d, nil
}

// parseNIC reads BRIDGE[,mac=ADDRESS][,down] and limits.
func parseNIC(text string) (api.NICSpec, error) {
	words := strings.Split(text, ",")
	n := api.NICSpec{Bridge: words[0]}
	if n.Bridge == "" {
		return n, errors.New("no bridge")
	}
	for _, w := range words[1:] {
		if mac, ok := strings.CutPrefix(w, "mac="); ok {
			n.MAC = mac
		} else if w == "down" {
			n.LinkDown = true
		} else if err := limitNIC(&n, w); err != nil {
			return n, err
		}
	}
	return n, nil
}

func (p *program) vmCreate() *cobra.Command {
	var (
		spec    = api.DefaultVMSpec()
		memory  string
		onReset string
		console string
		onOff   string
		onCrash string
		disks   []string
		nics    []string
		seed    seedFiles
		vsock   string
		start   bool
		task    waiting
	)
	cmd := &cobra.Command{
		Use: "create NAME --kernel FILE [flags]", Short: "Create a VM", Args: words(1, 1),
		Long: "Create a VM. Files are paths in the host's boot folder, those of disks in\nits folder of disks; those of a seed are read here. The VM is off unless --start\nis given.\n\nOptions of a disk: ro, serial=TEXT, format=raw, qcow2 or overlay (raw if it\nis left out), and for each file behind the disk's own backing=FORMAT:FILE.\n\n" + limitHelp,
		Example: "  vmctl vm create web --kernel vmlinuz --initrd initrd.img --memory 1G\n" +
			"  vmctl vm create web --kernel vmlinuz --cmdline 'console=ttyS0' --start\n" +
			"  vmctl vm create web --kernel vmlinuz --disk web.img --disk tools.img,ro\n" +
			"  vmctl vm create web --kernel vmlinuz --disk web,format=overlay,backing=raw:img\n" +
			"  vmctl vm create web --disk debian.img --nic br0 --user-data web.yaml",
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: p.with(func(ctx context.Context, c *client.Client, args []string) error {
			bytes, err := parseSize(memory)
			if err != nil {
				return usageError{fmt.Errorf("--memory: %w", err)}
			}
			if spec.Disks, err = parseAll("--disk", disks, parseDisk); err != nil {
				return err
			}
			if spec.NICs, err = parseAll("--nic", nics, parseNIC); err != nil {
				return err
			}
			if spec.Vsock, err = parseVsock(vsock); err != nil {
				return usageError{err}
			}
			spec.OnPoweroff, spec.OnCrash = api.EndPolicy(onOff), api.EndPolicy(onCrash)
			spec.MemoryBytes, spec.OnReset, spec.Console = bytes, api.ResetPolicy(onReset), api.ConsoleKind(console)
			texts, err := seed.read()
			if err != nil {
				return usageError{err}
			}
			vm, err := c.CreateVM(ctx, api.VMCreate{Name: args[0], Spec: spec, Seed: texts})
			if err != nil {
				return err
			}
			if start {
				if err := p.startNew(ctx, c, vm, task); err != nil {
					return err
				}
				if vm, err = c.VM(ctx, vm.ID); err != nil {
					return err
				}
			}
			if p.format == formatJSON {
				return p.json(vm)
			}
			_, err = fmt.Fprintf(p.out, "%s: created, %s (%s)\n", clean(vm.Name), clean(string(vm.Status.State)), clean(vm.ID))
			return err
		}),
	}
	flags := cmd.Flags()
	flags.IntVar(&spec.VCPUs, "vcpus", spec.VCPUs, "number of virtual CPUs")
	flags.StringVar(&memory, "memory", "512M", "guest memory: 512M, 2G; units are binary, M if none is given")
	flags.StringVar(&spec.Boot.Kernel, "kernel", "", "kernel (bzImage or PVH ELF), a path in the host's boot folder; without it the VM boots from its disks")
	flags.StringVar(&spec.Boot.Initrd, "initrd", "", "initial RAM disk, likewise")
	flags.StringVar(&spec.Boot.Cmdline, "cmdline", "", "kernel command line")
	flags.StringArrayVar(&disks, "disk", nil, "image in the host's folder of disks: FILE[,OPTION]...; may be repeated")
	flags.StringArrayVar(&nics, "nic", nil, "network card on a bridge of the host: BRIDGE[,mac=ADDRESS][,OPTION]...; may be repeated")
	seed.flags(flags)
	flags.StringVar(&vsock, "vsock", "", "sockets between the guest and the host, with a CID or --vsock=auto")
	flags.Lookup("vsock").NoOptDefVal = anyCID
	flags.StringVar(&console, "console", string(spec.Console), "the guest's device that is the console: serial or virtio")
	flags.StringVar(&onReset, "on-reset", string(spec.OnReset), "what a reset by the guest does: restart or stop")
	flags.StringVar(&onOff, "on-poweroff", string(spec.OnPoweroff), "what a power-off by the guest leads to: stop or restart")
	flags.StringVar(&onCrash, "on-crash", string(spec.OnCrash), "what a crash leads to: stop or restart, ever later")
	flags.BoolVar(&start, "start", false, "power it on as well")
	task.flags(cmd)
	cmd.MarkFlagsOneRequired("kernel", "disk")
	must(cmd.RegisterFlagCompletionFunc("console", fixed(string(api.ConsoleSerial), string(api.ConsoleVirtio))))
	for _, name := range []string{"on-poweroff", "on-crash"} {
		must(cmd.RegisterFlagCompletionFunc(name, fixed(string(api.EndStop), string(api.EndRestart))))
	}
	must(cmd.RegisterFlagCompletionFunc("on-reset", fixed(string(api.ResetRestart), string(api.ResetStop))))
	return cmd
}

// startNew powers a VM on that was just created. What fails here leaves the
// VM, and the error says so.
func (p *program) startNew(ctx context.Context, c *client.Client, vm *api.VM, w waiting) error {
	task, err := c.PowerOn(ctx, vm.ID)
	if err == nil {
		_, err = w.end(ctx, c, task)
	}
	if err != nil {
		return fmt.Errorf("created, but not started: %w", err)
	}
	return nil
}
