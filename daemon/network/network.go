// SPDX-License-Identifier: Apache-2.0

// Package network makes the host's ends of network cards: taps on bridges that exist.
package network

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"vmctl/daemon/api"
)

const (
	vhostPath = "/dev/vhost-net"
	// headerSize is what stands before each packet on a tap: struct virtio_net_hdr_v1
	// of linux/virtio_net.h, in bytes.
	headerSize = 12
)

// Bridges are the bridges of the host that VMs may be on.
type Bridges struct{ allowed []string }

// New returns those of that names.
func New(allowed []string) *Bridges { return &Bridges{allowed} }

// Check says whether a VM may have such a card: its bridge is allowed, and there. The
// error is an *api.Error with CodeNetworkInvalid or CodeNetworkMissing.
func (b *Bridges) Check(nic api.NICSpec) error {
	_, err := b.bridge(nic)
	return err
}

func (b *Bridges) bridge(nic api.NICSpec) (*netlink.Bridge, error) {
	if !slices.Contains(b.allowed, nic.Bridge) {
		return nil, &api.Error{Code: api.CodeNetworkInvalid, Detail: fmt.Sprintf("VMs may not be on %q: see --bridge of vmctld", nic.Bridge)}
	}
	link, err := netlink.LinkByName(nic.Bridge)
	var missing netlink.LinkNotFoundError
	switch {
	case errors.As(err, &missing):
		return nil, &api.Error{Code: api.CodeNetworkMissing, Detail: fmt.Sprintf("there is no bridge %q", nic.Bridge)}
	case err != nil:
		return nil, fmt.Errorf("bridge %s: %w", nic.Bridge, err)
	}
	bridge, ok := link.(*netlink.Bridge)
	if !ok {
		return nil, &api.Error{Code: api.CodeNetworkInvalid, Detail: fmt.Sprintf("%q is a %s and no bridge", nic.Bridge, link.Type())}
	}
	return bridge, nil
}

// Open makes the host's end of a card: a tap on its bridge, and a vhost, which is nil
// where the host gives none. The tap goes with its last file, so a daemon that dies
// leaves none.
func (b *Bridges) Open(run uint64, index int, nic api.NICSpec) (tap, vhost *os.File, err error) {
	bridge, err := b.bridge(nic)
	if err != nil {
		return nil, nil, err
	}
	link := &netlink.Tuntap{
		LinkAttrs:  netlink.LinkAttrs{Name: fmt.Sprintf("vm%d-%d", run, index), MTU: bridge.MTU},
		Mode:       netlink.TUNTAP_MODE_TAP,
		Flags:      netlink.TUNTAP_NO_PI | netlink.TUNTAP_VNET_HDR,
		NonPersist: true, Queues: 1,
	}
	if err := netlink.LinkAdd(link); err != nil {
		return nil, nil, fmt.Errorf("tap %s: %w", link.Name, err)
	}
	tap = link.Fds[0]
	if err := ready(tap, link, bridge); err != nil {
		tap.Close()
		return nil, nil, fmt.Errorf("tap %s: %w", link.Name, err)
	}
	// Without it packets go through the monitor.
	if vhost, err = os.OpenFile(vhostPath, os.O_RDWR, 0); err != nil {
		vhost = nil
	}
	return tap, vhost, nil
}

func ready(tap *os.File, link *netlink.Tuntap, bridge *netlink.Bridge) error {
	if err := unix.IoctlSetPointerInt(int(tap.Fd()), unix.TUNSETVNETHDRSZ, headerSize); err != nil {
		return os.NewSyscallError("TUNSETVNETHDRSZ", err)
	}
	made, err := netlink.LinkByName(link.Name)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetMaster(made, bridge); err != nil {
		return fmt.Errorf("put it on %s: %w", bridge.Name, err)
	}
	return netlink.LinkSetUp(made)
}
