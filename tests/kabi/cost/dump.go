// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"vmctl/abi"
)

const (
	fewVMs     = 100
	manyVMs    = 1000
	dumpRounds = 20
)

// dump times the inventory for each VM in it, of many VMs and of few, and likewise
// how long one more VM takes to make.
func dump() ([]result, error) {
	d, err := abi.OpenDevice(abi.DevicePath)
	if err != nil {
		return nil, err
	}
	conn, err := genetlink.Dial(nil)
	if err != nil {
		return nil, err
	}
	family, err := conn.GetFamily(abi.GenlName)
	if err != nil {
		return nil, err
	}
	// So that the table of descriptors does not grow in between.
	if err := unix.Dup3(d.FD(), 2*manyVMs, unix.O_CLOEXEC); err != nil {
		return nil, err
	}
	var vms []*abi.VM
	grow := func(to int) (float64, error) {
		start, from := time.Now(), len(vms)
		for len(vms) < to {
			var uuid [abi.UUIDLen]byte
			binary.BigEndian.PutUint32(uuid[:], uint32(len(vms)+1))
			vm, _, err := d.Create(uuid, "inventory")
			if err != nil {
				return 0, err
			}
			vms = append(vms, vm)
		}
		return float64(time.Since(start).Nanoseconds()) / float64(to-from), nil
	}
	if _, err := grow(fewVMs); err != nil { // warms up
		return nil, err
	}
	for _, vm := range vms {
		if err := vm.Close(); err != nil {
			return nil, err
		}
	}
	vms = nil
	if _, err := grow(fewVMs); err != nil {
		return nil, err
	}
	few, err := timeDump(conn, family, fewVMs)
	if err != nil {
		return nil, err
	}
	// Not the first hundred, which takes the memory of those that warmed up.
	secondMade, err := grow(2 * fewVMs)
	if err != nil {
		return nil, err
	}
	if _, err := grow(manyVMs - fewVMs); err != nil {
		return nil, err
	}
	lastMade, err := grow(manyVMs)
	if err != nil {
		return nil, err
	}
	many, err := timeDump(conn, family, manyVMs)
	if err != nil {
		return nil, err
	}
	for _, vm := range vms {
		err = errors.Join(err, vm.Close())
	}
	return []result{{"dump of 1,000 VMs, each", many, few}, {"one of the last 100 of 1,000 VMs", lastMade, secondMade}}, errors.Join(err, conn.Close())
}

// timeDump returns the nanoseconds of one VM in a dump that came in one pass.
func timeDump(conn *genetlink.Conn, family genetlink.Family, vms int) (float64, error) {
	var took []float64
	ask := genetlink.Message{Header: genetlink.Header{Command: abi.CmdVMGet, Version: abi.GenlVersion}}
	for range dumpRounds {
		start := time.Now()
		msgs, err := conn.Execute(ask, family.ID, netlink.Request|netlink.Dump)
		if err != nil {
			return 0, err
		}
		took = append(took, float64(time.Since(start).Nanoseconds())/float64(vms))
		if len(msgs) != vms+1 { // the first is no VM
			return 0, fmt.Errorf("%d messages for %d VMs", len(msgs), vms)
		}
	}
	return median(took), nil
}
