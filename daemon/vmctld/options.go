// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"vmctl/abi"
	"vmctl/daemon/api"
	"vmctl/daemon/auth"
	"vmctl/daemon/vm"
)

// options is the command line.
type options struct {
	runDir, stateDir      string
	bootDir, diskDir      string
	firmware              string
	vmx, device, frontKey string
	vmhttpUser            string
	group, adminGroup     string
	cgroup                string
	firstUID, lastUID     uint32
	grants                []auth.Grant
	bridges               []string
	debug                 bool
	unconfined            bool       // tests alone: there is no flag for it
	testNetwork           vm.Network // likewise
}

func parseFlags(args []string) (*options, error) {
	o := &options{}
	f := pflag.NewFlagSet("vmctld", pflag.ContinueOnError)
	f.StringVar(&o.runDir, "run-dir", "/run/vmctl", "folder of the sockets")
	f.StringVar(&o.stateDir, "state-dir", "/var/lib/vmctl", "folder of the database and of what VMs keep")
	f.StringVar(&o.bootDir, "boot-dir", "", "folder beneath which kernels and initrds are (default STATE-DIR/boot)")
	f.StringVar(&o.diskDir, "disk-dir", "", "folder beneath which disks are (default STATE-DIR/disks)")
	f.StringVar(&o.firmware, "firmware", "/usr/share/seabios/bios-256k.bin", "firmware of VMs without a kernel (Debian: seabios)")
	f.StringVar(&o.vmx, "vmx", "/usr/libexec/vmctl/vmx", "monitor program")
	f.StringVar(&o.device, "device", abi.DevicePath, "device of the kernel module")
	f.StringVar(&o.frontKey, "front-key", "", "key file shared with vmhttp (default $CREDENTIALS_DIRECTORY/front-key)")
	f.StringVar(&o.vmhttpUser, "vmhttp-user", "vmhttp", "user that may connect to front.sock: name or number")
	f.StringVar(&o.group, "group", "vmctl", "group that may connect to api.sock and to consoles")
	f.StringVar(&o.adminGroup, "admin-group", "vmctl-admin", "group whose members are administrators")
	f.StringVar(&o.cgroup, "cgroup", "auto", "delegated cgroup v2 folder for monitors, auto, or none")
	f.StringArrayVar(&o.bridges, "bridge", nil, "bridge that VMs may be on; may be repeated")
	f.BoolVar(&o.debug, "debug", false, "log more")
	uids := f.String("uid-range", "200000..265535", "user ids for monitors, one per VM")
	grants := f.StringArray("grant", nil, "PRINCIPAL=ROLE on all VMs, such as local:admin=admin; kept over restarts")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unknown argument %q", f.Arg(0))
	}
	if o.bootDir == "" {
		o.bootDir = filepath.Join(o.stateDir, "boot")
	}
	if o.diskDir == "" {
		o.diskDir = filepath.Join(o.stateDir, "disks")
	}
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); o.frontKey == "" && dir != "" {
		o.frontKey = filepath.Join(dir, "front-key")
	}
	err := o.parseUIDs(*uids)
	for _, g := range *grants {
		err = errors.Join(err, o.parseGrant(g))
	}
	return o, err
}

func (o *options) parseUIDs(s string) error {
	from, to, ok := strings.Cut(s, "..")
	first, err1 := strconv.ParseUint(from, 10, 32)
	last, err2 := strconv.ParseUint(to, 10, 32)
	// Ids of people and services are no monitor's.
	if !ok || err1 != nil || err2 != nil || first < 1000 || last < first || last >= 1<<32-2 {
		return fmt.Errorf("--uid-range %q: not FIRST..LAST from 1000 on", s)
	}
	o.firstUID, o.lastUID = uint32(first), uint32(last)
	return nil
}

func (o *options) parseGrant(s string) error {
	principal, role, ok := strings.Cut(s, "=")
	g := auth.Grant{Principal: auth.Principal(principal), Scope: auth.AllVMs, Role: api.Role(role)}
	if !ok || !g.Valid() {
		return fmt.Errorf("--grant %q: not PRINCIPAL=viewer, operator or admin", s)
	}
	o.grants = append(o.grants, g)
	return nil
}
