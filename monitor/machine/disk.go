// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"vmctl/abi"
	"vmctl/monitor/overlay"
	"vmctl/monitor/qcow2"
	"vmctl/monitor/rate"
	"vmctl/monitor/spec"
	"vmctl/monitor/virtio/blk"
)

var (
	// ErrDisk is a disk whose backend is not there, or has other files than the disk.
	ErrDisk = errors.New("no such disk is attached to the VM")
	// ErrNoDisk is a number that no disk of the machine has.
	ErrNoDisk = errors.New("the machine has no such disk")
	// ErrReadOnly is a disk that cannot go on in an overlay.
	ErrReadOnly = errors.New("a disk that is only read has no use for a new overlay")
	// ErrMerging is a disk that is being merged.
	ErrMerging = errors.New("the disk is being merged")
	// ErrNotOwn is a disk with no overlay above a file of its own.
	ErrNotOwn = errors.New("the disk has no overlay above a file of its own")
	// ErrNotMerged is a merge to finish that is not done.
	ErrNotMerged = errors.New("the disk is not merged")
	// ErrDeep is a chain that has no room for one more file.
	ErrDeep = errors.New("the disk has too many files already")
)

// disk is a disk and what it is made of.
type disk struct {
	dev    *blk.Device
	port   *device
	files  int      // in all
	chain  []uint32 // backends of the disk's own files, the uppermost first
	merge  *overlay.Merge
	result chan error // of the merge that runs; has room for it
	ended  bool       // it is known
	failed error
}

// layer is a file of a disk.
type layer struct {
	*os.File
	format spec.Format
	own    bool // it may be written to
}

// openDisk makes a disk of its backends.
func (m *Machine) openDisk(d spec.Disk) (*disk, error) {
	layers, err := m.layers(d)
	if err != nil {
		return nil, err
	}
	// A queue for each processor, as far as they serve a purpose.
	o := blk.Options{ReadOnly: d.ReadOnly, ID: d.ID, Queues: int(min(m.spec.VCPUs, blk.MaxQueues)), Limit: d.Limit}
	made := &disk{files: len(layers), chain: append([]uint32{d.Backend}, d.Own...)}
	if d.Format == spec.Raw {
		made.dev, err = blk.Open(layers[0].File, o)
		return made, err
	}
	image, err := openLayers(layers)
	if err != nil {
		return nil, err
	}
	if last := layers[len(layers)-1]; last.own && last.format == spec.Raw {
		made.dev, err = blk.OpenLayered(image.(blk.Writable), last.File, o)
	} else {
		made.dev, err = blk.OpenImage(image, o)
	}
	return made, err
}

// layers takes a disk's files from its backends.
func (m *Machine) layers(d spec.Disk) ([]layer, error) {
	formats := append([]spec.Format{d.Format}, d.Backing...)
	var all []layer
	for i, backend := range append([]uint32{d.Backend}, d.Own...) {
		roles := []abi.Role{abi.RoleData}
		if i == len(d.Own) {
			for range d.Backing[i:] {
				roles = append(roles, abi.RoleBase)
			}
		}
		fds, err := m.take(backend, abi.BackendDisk, roles...)
		if err != nil {
			for _, l := range all {
				l.Close()
			}
			if errors.Is(err, unix.ENOENT) {
				err = ErrDisk
			}
			return nil, err
		}
		for k, fd := range fds {
			all = append(all, layer{os.NewFile(uintptr(fd), "disk"), formats[len(all)], k == 0})
		}
	}
	return all, nil
}

// openLayers makes an image of files, which it takes over: overlays, and behind them
// what they are above.
func openLayers(layers []layer) (blk.Image, error) {
	first := layers[0]
	switch {
	case first.format == spec.Overlay:
		base, err := openLayers(layers[1:])
		if err != nil {
			return nil, errors.Join(err, first.Close())
		}
		return overlay.Open(first.File, base)
	case first.format == spec.Raw && first.own:
		raw, err := overlay.OpenRaw(first.File)
		if err != nil {
			return nil, errors.Join(err, first.Close())
		}
		return raw, nil
	}
	files := make([]qcow2.File, len(layers))
	for i, l := range layers {
		files[i] = qcow2.File{File: l.File, Raw: l.format == spec.Raw}
	}
	return qcow2.Open(files...)
}

// SwitchDisk lets a disk go on in a new overlay above what it is made of, which is only
// read from then on. The overlay is the one file, empty, of a backend. The guest finds
// the disk as it was. After an error nothing has changed.
func (m *Machine) SwitchDisk(n uint8, backend uint32) error {
	d, err := m.disk(n)
	if err != nil {
		return err
	}
	low, err := d.lower()
	if err != nil {
		return err
	}
	fds, err := m.take(backend, abi.BackendDisk, abi.RoleData)
	if errors.Is(err, unix.ENOENT) {
		return ErrDisk
	}
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fds[0]), "disk")
	// What takes time is done before the guest has to wait.
	if err := d.dev.Flush(); err != nil {
		return errors.Join(err, file.Close())
	}
	top, err := overlay.New(file, low)
	if err != nil {
		return err
	}
	err = d.port.Alter(func() error {
		// The overlay's flush is none for what is behind it.
		if err := d.dev.Flush(); err != nil {
			return err
		}
		return d.dev.Replace(top)
	})
	if err != nil {
		return errors.Join(err, file.Close())
	}
	d.files++
	d.chain = append([]uint32{backend}, d.chain...)
	return nil
}

// SetDisk changes the limit of a disk of a running machine. errors.Is: ErrNoDisk.
func (m *Machine) SetDisk(n uint8, l rate.Limit) error {
	d, err := m.disk(n)
	if err != nil {
		return err
	}
	if d.dev.Limit() == l {
		return nil
	}
	return d.port.Alter(func() error {
		d.dev.SetLimit(l)
		return nil
	})
}

// lower is what a disk is made of, to have an overlay above it.
func (d *disk) lower() (overlay.Lower, error) {
	switch {
	case d.merge != nil:
		return nil, ErrMerging
	case d.files > spec.MaxBacking:
		return nil, ErrDeep
	case d.dev.ReadOnly():
		return nil, ErrReadOnly
	case d.dev.Image() == nil:
		return overlay.OpenRaw(d.dev.File())
	}
	return d.dev.Image().(overlay.Lower), nil
}

// MergeState is how far the merge of a disk is.
type MergeState uint8

// States of a merge.
const (
	NotMerging  MergeState = 0
	Merging     MergeState = 1 // the uppermost file is being written into the one behind it
	Merged      MergeState = 2 // it is, and both are written to
	MergeFailed MergeState = 3 // it could not be, and both are used still
)

// Chain is what a disk is made of.
type Chain struct {
	Backends    []uint32 // of the disk's own files, the uppermost first
	State       MergeState
	Done, Total uint64 // bytes to merge
	Err         error  // with MergeFailed
}

// Chain says what a disk is made of now.
func (m *Machine) Chain(n uint8) (Chain, error) {
	d, err := m.disk(n)
	if err != nil {
		return Chain{}, err
	}
	c := Chain{Backends: d.chain}
	if d.merge == nil {
		return c, nil
	}
	c.Done, c.Total = d.merge.Progress()
	switch {
	case !d.over():
		c.State = Merging
	case d.failed != nil:
		c.State, c.Err = MergeFailed, d.failed
	default:
		c.State = Merged
	}
	return c, nil
}

// over reports whether the merge's copying has ended.
func (d *disk) over() bool {
	if d.ended {
		return true
	}
	select {
	case d.failed = <-d.result:
		d.ended = true
	default:
	}
	return d.ended
}

// BeginMerge lets the uppermost file of a disk be written into the one behind it, unless
// that is being done or done.
func (m *Machine) BeginMerge(n uint8) error {
	d, err := m.disk(n)
	if err != nil || d.merge != nil {
		return err
	}
	top, ok := d.dev.Image().(*overlay.Disk)
	if !ok || len(d.chain) < 2 {
		return ErrNotOwn
	}
	var merge *overlay.Merge
	err = d.port.Alter(func() error {
		var err error
		if merge, err = overlay.NewMerge(top); err != nil {
			return err
		}
		return d.dev.Replace(merge)
	})
	if err != nil {
		return err
	}
	d.merge, d.ended, d.failed = merge, false, nil
	result := make(chan error, 1)
	d.result = result
	go func() { result <- merge.Run() }()
	return nil
}

// FinishMerge leaves the uppermost file, all of which is in the one behind it. Until then
// either chain may be what the disk is opened with next.
func (m *Machine) FinishMerge(n uint8) error {
	d, err := m.disk(n)
	if err != nil {
		return err
	}
	if d.merge == nil || !d.over() || d.failed != nil {
		return ErrNotMerged
	}
	err = d.port.Alter(func() error {
		low, err := d.merge.Finish()
		if _, raw := low.(*overlay.Raw); raw && d.dev.File() != nil {
			return errors.Join(err, d.dev.Replace(nil))
		}
		return errors.Join(err, d.dev.Replace(low))
	})
	d.merge, d.chain, d.files = nil, d.chain[1:], d.files-1
	return err
}

// AbortMerge ends a merge, of whatever state, and keeps the uppermost file.
func (m *Machine) AbortMerge(n uint8) error {
	d, err := m.disk(n)
	if err != nil || d.merge == nil {
		return err
	}
	d.halt()
	err = d.port.Alter(func() error {
		top, err := d.merge.Leave()
		if err != nil {
			return err
		}
		return d.dev.Replace(top)
	})
	if err == nil {
		d.merge = nil
	}
	return err
}

// halt returns when nothing is copied any more.
func (d *disk) halt() {
	if d.merge == nil || d.ended {
		return
	}
	d.merge.Abort()
	d.failed, d.ended = <-d.result, true
}
