// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"fmt"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"vmctl/daemon/api"
)

// sector is what a disk is a multiple of, in bytes: virtio 1.2, 5.2.4.
const sector = 512

// Files are the open files that a run begins with.
type Files struct {
	Kernel *os.File       // or the firmware, when the spec names no kernel
	Initrd *os.File       // may be nil
	disks  [][][]*os.File // until they are attached: of each the files that are its own, the last with those behind
	seed   *os.File       // likewise; nil without one
	Saved  *SavedFiles    // nil: it begins at power-on
}

// Close closes them.
func (f *Files) Close() {
	if f == nil {
		return
	}
	for _, file := range []*os.File{f.Kernel, f.Initrd, f.seed} {
		if file != nil {
			file.Close() // nothing was written
		}
	}
	f.seed = nil
	f.Saved.Close()
	f.closeDisks()
}

func (f *Files) closeDisks() {
	for _, file := range slices.Concat(slices.Concat(f.disks...)...) {
		file.Close() // nothing was written
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
			err = inv.openDisk(f, "body.spec.disks["+strconv.Itoa(i)+"]", d)
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
	if spec.Boot.Kernel == "" {
		f.Kernel, err = openFirmware(inv.config.Firmware)
		return err
	}
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

// openFirmware opens the host's firmware. It is the operator's file, not a caller's.
func openFirmware(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, &api.Error{Code: api.CodeBootFileMissing, Field: "body.spec.boot.kernel",
			Detail: "there is no kernel, and the host has no firmware to boot from disks: " + err.Error()}
	}
	return f, nil
}

func (inv *Inventory) openDisk(f *Files, field string, d api.DiskSpec) error {
	flags := uint64(unix.O_RDWR)
	if d.ReadOnly {
		flags = unix.O_RDONLY
	}
	file, size, err := inv.openTop(field+".path", d, flags)
	if err != nil {
		return err
	}
	f.disks = append(f.disks, [][]*os.File{{file}})
	disk := &f.disks[len(f.disks)-1]
	for i, b := range d.Backing {
		field := field + ".backing[" + strconv.Itoa(i) + "].path"
		if b.Own {
			file, err := inv.overlays.open(field, b.Path)
			if err != nil {
				return err
			}
			*disk = append(*disk, []*os.File{file})
			continue
		}
		file, _, err := inv.disks.open(diskFile, field, b.Path, unix.O_RDONLY)
		if err != nil {
			return err
		}
		last := &(*disk)[len(*disk)-1]
		*last = append(*last, file)
	}
	// What another format holds is not for this process to read.
	if (d.Format == "" || d.Format == api.FormatRaw) && size%sector != 0 {
		return &api.Error{Code: api.CodeDiskInvalid, Field: field + ".path", Detail: fmt.Sprintf("%q has %d bytes, which are not whole sectors of 512", d.Path, size)}
	}
	return nil
}

// openTop opens a disk's uppermost file.
func (inv *Inventory) openTop(field string, d api.DiskSpec, flags uint64) (*os.File, int64, error) {
	switch {
	case d.Own:
		file, err := inv.overlays.open(field, d.Path)
		return file, 0, err
	case d.Format == api.FormatOverlay:
		return inv.disks.open(overlayFile, field, d.Path, flags)
	}
	return inv.disks.open(diskFile, field, d.Path, flags)
}

// check opens and closes the files that spec names, and looks for its bridges.
func (inv *Inventory) check(spec api.VMSpec) error {
	f, err := inv.openFiles(spec)
	if err != nil {
		return err
	}
	f.Close()
	for i, n := range spec.NICs {
		if err := inv.network.Check(n); err != nil {
			return networkError(i, err)
		}
	}
	return nil
}
