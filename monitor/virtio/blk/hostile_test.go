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
			fd, err := unix.MemfdCreate("disk", unix.MFD_CLOEXEC)
			if err != nil {
				t.Fatal(err)
			}
			file := os.NewFile(uintptr(fd), "disk")
			if err := file.Truncate(diskSectors * sector); err != nil {
				t.Fatal(err)
			}
			d, err := Open(file, Options{Queues: 2})
			if err != nil {
				t.Fatal(err)
			}
			var dev virtio.Device = d
			if workers {
				dev = withWorkers{d}
			}
			virtiotest.Hostile(t, dev, program)
			if size, err := unix.Seek(fd, 0, unix.SEEK_END); err == nil && size != diskSectors*sector {
				t.Errorf("the file has %d bytes now", size)
			}
		}
		hostileOverlay(t, program)
	})
}

// hostileOverlay is the same to an overlay above a raw file.
func hostileOverlay(t *testing.T, program []byte) {
	var files [2]*os.File
	for i := range files {
		fd, err := unix.MemfdCreate("disk", unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		files[i] = os.NewFile(uintptr(fd), "disk")
	}
	if err := files[1].Truncate(diskSectors * sector); err != nil {
		t.Fatal(err)
	}
	low, err := qcow2.Open(qcow2.File{File: files[1], Raw: true})
	if err != nil {
		t.Fatal(err)
	}
	top, err := overlay.Open(files[0], low)
	if err != nil {
		t.Fatal(err)
	}
	d, err := OpenImage(top, Options{Queues: 2})
	if err != nil {
		t.Fatal(err)
	}
	virtiotest.Hostile(t, d, program)
}
