// SPDX-License-Identifier: Apache-2.0

package blk

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"vmctl/monitor/overlay"
	"vmctl/monitor/virtio"
	"vmctl/monitor/virtio/virtiotest"
)

// A disk goes on in new overlays, and they are merged into its file again, while a driver
// writes and reads on all queues.
func TestReplace(t *testing.T) {
	both(t, func(t *testing.T, workers bool) {
		const queues, rounds = 2, 3
		path := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(path, make([]byte, diskSectors*sector), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		dev, err := Open(f, Options{Queues: queues})
		if err != nil {
			t.Fatal(err)
		}
		var transport virtio.Device = dev
		if workers {
			transport = withWorkers{dev}
		}
		d := virtiotest.New(t, transport, 0)
		end := make(chan struct{})
		var drivers sync.WaitGroup
		for q := range queues {
			drivers.Go(func() { writeAndRead(t, d, q, end) })
		}
		push := func() {
			low, ok := dev.Image().(overlay.Lower)
			if !ok {
				if low, err = overlay.OpenRaw(dev.File()); err != nil {
					t.Error(err)
				}
			}
			f, err := os.CreateTemp(t.TempDir(), "")
			if err != nil {
				t.Fatal(err)
			}
			top, err := overlay.New(f, low)
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Alter(func() error { return dev.Replace(top) }); err != nil {
				t.Error(err)
			}
		}
		merge := func(raw bool) {
			var m *overlay.Merge
			err := d.Alter(func() (err error) {
				if m, err = overlay.NewMerge(dev.Image().(*overlay.Disk)); err != nil {
					return err
				}
				return dev.Replace(m)
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Run(); err != nil {
				t.Error(err)
			}
			err = d.Alter(func() error {
				low, err := m.Finish()
				if err != nil || raw {
					return dev.Replace(nil)
				}
				return dev.Replace(low)
			})
			if err != nil {
				t.Error(err)
			}
		}
		for range rounds {
			push()
			push()
			merge(false)
			merge(true)
		}
		close(end)
		drivers.Wait()
		if dev.Image() != nil || len(d.Broken()) > 0 {
			t.Errorf("not a file again, or broken: %v", d.Broken())
		}
	})
}

// writeAndRead writes to every second sector from the one with the queue's number on, and
// reads what it wrote before.
func writeAndRead(t *testing.T, d *virtiotest.Driver, q int, end <-chan struct{}) {
	wrote := make(map[uint64]byte)
	for i := 0; ; i++ {
		at := uint64(i*14%diskSectors + q)
		if got := d.Do(q, read(at, sector))[0]; status(got) != statusOK || !bytes.Equal(got.Write[0], bytes.Repeat([]byte{wrote[at]}, sector)) {
			t.Errorf("queue %d: sector %d has %d, not %d: status %d", q, at, got.Write[0][0], wrote[at], status(got))
			return
		}
		wrote[at] = byte(i)
		if got := d.Do(q, write(at, bytes.Repeat([]byte{byte(i)}, sector)))[0]; status(got) != statusOK {
			t.Errorf("queue %d: status %d", q, status(got))
			return
		}
		select {
		case <-end:
			if i > diskSectors {
				return
			}
		default:
		}
	}
}
