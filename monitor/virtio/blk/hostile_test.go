// SPDX-License-Identifier: Apache-2.0

//go:build !race

package blk

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"vmctl/monitor/overlay"
	"vmctl/monitor/qcow2"
	"vmctl/monitor/virtio"
	"vmctl/monitor/virtio/virtiotest"
)

func FuzzHostile(f *testing.F) {
	virtiotest.Seeds(f)
	f.Fuzz(func(t *testing.T, program []byte) {
		for _, workers := range []bool{true, false} {
			file := newFile(t, diskSectors*sector)
			virtiotest.Hostile(t, newDisk(t, file, workers), program)
			if size, err := unix.Seek(int(file.Fd()), 0, unix.SEEK_END); err == nil && size != diskSectors*sector {
				t.Errorf("the file has %d bytes now", size)
			}
		}
		virtiotest.Hostile(t, newOverlay(t), program)
	})
}

func FuzzLoad(f *testing.F) {
	kinds := []func(testing.TB) virtio.Device{
		func(t testing.TB) virtio.Device { return newDisk(t, newFile(t, diskSectors*sector), false) },
		func(t testing.TB) virtio.Device { return newDisk(t, newFile(t, diskSectors*sector), true) },
		newOverlay,
	}
	virtiotest.States(f, func() virtio.Device { return kinds[0](f) })
	f.Fuzz(func(t *testing.T, state, program []byte) {
		for _, k := range kinds {
			virtiotest.Load(t, func() virtio.Device { return k(t) }, state, program)
		}
	})
}

// newFile is a file without a name.
func newFile(t testing.TB, size int64) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("disk", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "disk")
	if err := file.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return file
}

func newDisk(t testing.TB, file *os.File, workers bool) virtio.Device {
	t.Helper()
	d, err := Open(file, Options{Queues: 2})
	if err != nil {
		t.Fatal(err)
	}
	if workers {
		return withWorkers{d}
	}
	return d
}

// newOverlay is a disk of an empty overlay above a raw file.
func newOverlay(t testing.TB) virtio.Device {
	t.Helper()
	low, err := qcow2.Open(qcow2.File{File: newFile(t, diskSectors*sector), Raw: true})
	if err != nil {
		t.Fatal(err)
	}
	top, err := overlay.Open(newFile(t, 0), low)
	if err != nil {
		t.Fatal(err)
	}
	d, err := OpenImage(top, Options{Queues: 2})
	if err != nil {
		t.Fatal(err)
	}
	return d
}
