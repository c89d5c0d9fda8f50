// SPDX-License-Identifier: Apache-2.0

package kern

import (
	"cmp"
	"context"
	"slices"

	"github.com/mdlayher/netlink"

	"vmctl/abi"
	"vmctl/daemon/vm"
)

// Backend is a backend of a run.
type Backend struct {
	Run      uint64
	Number   uint32 // within the run, never used again
	Kind     abi.BackendKind
	State    abi.BackendState
	Roles    []abi.Role // of its files
	Dev      uint64     // disk: as stat tells it, of a block device its own
	Inode    uint64     // disk: likewise; 0: it is a block device
	Writable bool       // disk: nobody else has it
}

// Backends returns the backends of a run, or of all when it is 0, also those that
// are left of runs that are gone.
func (k *Kernel) Backends(ctx context.Context, run uint64) ([]Backend, error) {
	_, rows, err := list(ctx, k, query{op: "device-get", cmd: abi.CmdDeviceGet, head: headOfBackends}.ofRun(abi.ADevVMID, run), parseBackend)
	return rows, err
}

// Claims returns the disks that runs have, also runs that are gone.
func (k *Kernel) Claims(ctx context.Context) ([]vm.Claim, error) {
	all, err := k.Backends(ctx, 0)
	if err != nil {
		return nil, err
	}
	var claims []vm.Claim
	for _, b := range all {
		if b.Kind == abi.BackendDisk {
			claims = append(claims, vm.Claim{Run: b.Run, Backend: b.Number, Dev: b.Dev, Inode: b.Inode, Draining: b.State == abi.BackendStateDraining})
		}
	}
	return claims, nil
}

// Attached returns what a run has, in the order in which it was attached.
func (k *Kernel) Attached(ctx context.Context, run uint64) ([]vm.Attached, error) {
	all, err := k.Backends(ctx, run)
	if err != nil {
		return nil, err
	}
	var attached []vm.Attached
	for _, b := range all {
		if b.State == abi.BackendStateAttached {
			attached = append(attached, vm.Attached{Backend: b.Number, IsNIC: b.Kind == abi.BackendNIC})
		}
	}
	slices.SortFunc(attached, func(a, b vm.Attached) int { return cmp.Compare(a.Backend, b.Backend) })
	return attached, nil
}

func parseBackend(d *netlink.AttributeDecoder) (Backend, error) {
	var v Backend
	for d.Next() {
		switch d.Type() {
		case abi.ADevVMID:
			v.Run = d.Uint64()
		case abi.ADevBackend:
			v.Number = d.Uint32()
		case abi.ADevKind:
			v.Kind = abi.BackendKind(d.Uint32())
		case abi.ADevState:
			v.State = abi.BackendState(d.Uint32())
		case abi.ADevRole:
			v.Roles = append(v.Roles, abi.Role(d.Uint32()))
		case abi.ADevDev:
			v.Dev = d.Uint64()
		case abi.ADevInode:
			v.Inode = d.Uint64()
		case abi.ADevWritable:
			v.Writable = d.Flag()
		}
	}
	return v, orNumber(d.Err(), v.Run)
}
