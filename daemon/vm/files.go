// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/daemon/api"
)

const (
	sector = 512 // bytes: what a disk is a multiple of, virtio 1.2, 5.2.4
	// drainTimeout is how long a start waits for a disk whose last VM has ended,
	// until I/O under way gives it back.
	drainTimeout = 15 * time.Second
)

// Files are the open files that a run begins with.
type Files struct {
	Kernel *os.File
	Initrd *os.File   // may be nil
	disks  []*os.File // until they are attached
}

// Close closes them.
func (f *Files) Close() {
	for _, file := range append([]*os.File{f.Kernel, f.Initrd}, f.disks...) {
		if file != nil {
			file.Close() // nothing was written
		}
	}
	f.disks = nil
}

// openFiles opens all that spec names. The error is an *api.Error that says which
// of it is wrong.
func (inv *Inventory) openFiles(spec api.VMSpec) (*Files, error) {
	f := new(Files)
	err := inv.openBoot(f, spec)
	for i, d := range spec.Disks {
		if err == nil {
			err = inv.openDisk(f, "body.spec.disks["+strconv.Itoa(i)+"].path", d)
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (inv *Inventory) openBoot(f *Files, spec api.VMSpec) (err error) {
	const kernel, initrd = "body.spec.boot.kernel", "body.spec.boot.initrd"
	var kernelSize, initrdSize int64
	if f.Kernel, kernelSize, err = inv.boot.open(bootFile, kernel, spec.Boot.Kernel, unix.O_RDONLY); err != nil {
		return err
	}
	if kernelSize > spec.MemoryBytes {
		return &api.Error{Code: api.CodeBootFileInvalid, Field: kernel, Detail: "the kernel is larger than the VM's memory"}
	}
	if spec.Boot.Initrd == "" {
		return nil
	}
	if f.Initrd, initrdSize, err = inv.boot.open(bootFile, initrd, spec.Boot.Initrd, unix.O_RDONLY); err != nil {
		return err
	}
	if kernelSize+initrdSize > spec.MemoryBytes {
		return &api.Error{Code: api.CodeInitrdTooLarge, Field: initrd,
			Detail: fmt.Sprintf("kernel and initrd (%d bytes) are larger than the VM's memory", kernelSize+initrdSize)}
	}
	return nil
}

func (inv *Inventory) openDisk(f *Files, field string, d api.DiskSpec) error {
	flags := uint64(unix.O_RDWR)
	if d.ReadOnly {
		flags = unix.O_RDONLY
	}
	file, size, err := inv.disks.open(diskFile, field, d.Path, flags)
	if err != nil {
		return err
	}
	f.disks = append(f.disks, file)
	if size%sector != 0 {
		return &api.Error{Code: api.CodeDiskInvalid, Field: field, Detail: fmt.Sprintf("%q has %d bytes, which are not whole sectors of 512", d.Path, size)}
	}
	return nil
}

// checkFiles opens and closes what spec names.
func (inv *Inventory) checkFiles(spec api.VMSpec) error {
	f, err := inv.openFiles(spec)
	if err != nil {
		return err
	}
	f.Close()
	return nil
}

// attachDisks gives the disks to the run, and returns their numbers there. The
// daemon keeps none of them open: only then the kernel sees who has them.
func (inv *Inventory) attachDisks(ctx context.Context, h Handle, spec api.VMSpec, files *Files) ([]uint32, error) {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	numbers := make([]uint32, 0, len(files.disks))
	for i, file := range files.disks {
		n, err := inv.attachDisk(ctx, h, file)
		if err != nil {
			return nil, diskError(spec.Disks[i].Path, err)
		}
		numbers = append(numbers, n)
	}
	for _, file := range files.disks {
		file.Close() // nothing was written
	}
	files.disks = nil
	return numbers, nil
}

// attachDisk waits for as long as only a VM that has ended has the disk.
func (inv *Inventory) attachDisk(ctx context.Context, h Handle, file *os.File) (uint32, error) {
	for {
		changed := inv.claimsChange() // before the claims are asked for
		n, err := h.AttachDisk(file)
		if !errors.Is(err, ErrDiskClaimed) {
			return n, err
		}
		holder, draining, err := inv.claimant(ctx, file)
		if err != nil {
			return 0, err
		}
		if !draining {
			return 0, &api.Error{Code: api.CodeDiskInUse, Detail: "in use by " + holder}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, &api.Error{Code: api.CodeDiskInUse, Detail: holder + " has ended, and I/O of it still has the disk"}
		}
	}
}

// claimant says in words who has a disk that was refused, and whether it only
// drains. Who had it may have let go of it since: that is as if it drained.
func (inv *Inventory) claimant(ctx context.Context, file *os.File) (holder string, draining bool, err error) {
	claims, err := inv.kernel.Claims(ctx)
	if err != nil {
		return "", false, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return "", false, os.NewSyscallError("fstat", err)
	}
	holder, draining = "a VM that has ended", true
	for _, c := range claims {
		if c.Dev != st.Dev || c.Inode != st.Ino {
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
