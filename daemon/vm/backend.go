// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/daemon/api"
)

// drainTimeout is how long a start waits for a disk whose last VM has ended, until
// I/O under way gives it back.
const drainTimeout = 15 * time.Second

// Backends are the numbers that the spec's disks and network cards have in the run, and
// that the disk of the seed has, or 0 without one.
type Backends struct {
	Disks [][]uint32 // of each the files that are its own, the uppermost first
	NICs  []uint32
	Seed  uint32
	// Numbers are those that they have in the machine, by place in the spec.
	Numbers Plugged
}

// attach gives disks and network cards to the run. The daemon keeps no file of them
// open: only then the kernel sees who has them.
func (inv *Inventory) attach(ctx context.Context, h Handle, run uint64, spec api.VMSpec, files *Files) (b Backends, err error) {
	if b.Disks, err = inv.attachDisks(ctx, h, spec, files); err != nil {
		return b, err
	}
	if b.Seed, err = attachSeed(h, files); err != nil {
		return b, err
	}
	b.NICs, err = inv.attachNICs(h, run, spec)
	return b, err
}

func (inv *Inventory) attachDisks(ctx context.Context, h Handle, spec api.VMSpec, files *Files) ([][]uint32, error) {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	numbers := make([][]uint32, len(files.disks))
	for i, disk := range files.disks {
		for _, own := range disk {
			n, err := inv.attachDisk(ctx, h, own)
			if err != nil {
				return nil, diskError(spec.Disks[i].Path, err)
			}
			numbers[i] = append(numbers[i], n)
		}
	}
	files.closeDisks()
	return numbers, nil
}

// attachSeed gives the run the disk of its seed, which no other can have.
func attachSeed(h Handle, files *Files) (uint32, error) {
	if files.seed == nil {
		return 0, nil
	}
	n, err := h.AttachDisk(files.seed)
	if err != nil {
		return 0, coded(api.CodeKernelFailed, "vm-attach-disk of the seed", err)
	}
	files.seed.Close() // nothing was written
	files.seed = nil
	return n, nil
}

// attachDisk waits for as long as only a VM that has ended has the disk.
func (inv *Inventory) attachDisk(ctx context.Context, h Handle, disk []*os.File) (uint32, error) {
	for {
		changed := inv.claimsChange() // before the claims are asked for
		n, err := h.AttachDisk(disk[0], disk[1:]...)
		if !errors.Is(err, ErrDiskClaimed) {
			return n, err
		}
		holder, draining, err := inv.claimant(ctx, disk)
		if err != nil {
			return 0, err
		}
		if !draining {
			return 0, &api.Error{Code: api.CodeDiskInUse, Detail: "in use by " + holder}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if holder == "" { // the kernel does not tell who has which backing file
				return 0, &api.Error{Code: api.CodeDiskInUse, Detail: "in use as a backing file, or still held by I/O of a VM which has ended"}
			}
			return 0, &api.Error{Code: api.CodeDiskInUse, Detail: "still held by I/O of " + holder + ", which has ended"}
		}
	}
}

// claimant says in words who has a disk that was refused, and whether it only
// drains. Who had it may have let go of it since: that is as if it drained, of
// nobody.
func (inv *Inventory) claimant(ctx context.Context, disk []*os.File) (holder string, draining bool, err error) {
	claims, err := inv.kernel.Claims(ctx)
	if err != nil {
		return "", false, err
	}
	files := make([]unix.Stat_t, len(disk))
	for i, file := range disk {
		if err := unix.Fstat(int(file.Fd()), &files[i]); err != nil {
			return "", false, os.NewSyscallError("fstat", err)
		}
	}
	draining = true
	for _, c := range claims {
		if !slices.ContainsFunc(files, func(st unix.Stat_t) bool { return c.Dev == st.Dev && c.Inode == st.Ino }) {
			continue
		}
		name := "run " + strconv.FormatUint(c.Run, 10)
		if run, err := inv.kernel.Open(c.Run); err == nil {
			if facts, err := run.Run(); err == nil {
				name = fmt.Sprintf("the VM %q", facts.Name)
			}
			run.Close() // read only
		}
		if !c.Draining {
			return name, false, nil
		}
		holder = name
	}
	return holder, draining, nil
}

// diskError says of which disk it is.
func diskError(path string, err error) error {
	var e *api.Error
	if errors.As(err, &e) && e.Code == api.CodeDiskInUse {
		return &api.Error{Code: e.Code, Detail: fmt.Sprintf("disk %q is %s", path, e.Detail), Err: e.Err}
	}
	return coded(api.CodeKernelFailed, "vm-attach-disk", err)
}

// attachNICs makes the host's ends of the network cards.
func (inv *Inventory) attachNICs(h Handle, run uint64, spec api.VMSpec) ([]uint32, error) {
	numbers := make([]uint32, 0, len(spec.NICs))
	for i, n := range spec.NICs {
		tap, vhost, err := inv.network.Open(run, i, n)
		if err != nil {
			return nil, networkError(i, err)
		}
		number, err := h.AttachNIC(tap, vhost)
		tap.Close()
		if vhost != nil {
			vhost.Close()
		}
		if err != nil {
			return nil, coded(api.CodeKernelFailed, "vm-attach-nic", err)
		}
		numbers = append(numbers, number)
	}
	return numbers, nil
}

// networkError says of which network card it is.
func networkError(i int, err error) error {
	var e *api.Error
	if errors.As(err, &e) {
		return &api.Error{Code: e.Code, Field: fmt.Sprintf("body.spec.nics[%d].bridge", i), Detail: e.Detail, Err: e.Err}
	}
	return coded(api.CodeKernelFailed, "network card", err)
}

// giveAddresses gives each network card that has none an address of its own for good:
// one that is locally administered.
func giveAddresses(spec *api.VMSpec) {
	for i := range spec.NICs {
		if spec.NICs[i].MAC == "" {
			mac := make(net.HardwareAddr, 6)
			rand.Read(mac)
			mac[0] = mac[0]&^1 | 2
			spec.NICs[i].MAC = mac.String()
		}
	}
}
