// SPDX-License-Identifier: Apache-2.0

package blk

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"vmctl/monitor/overlay"
	"vmctl/monitor/qcow2"
	"vmctl/monitor/virtio/virtiotest"
)

// newImage is an image of QEMU's with 64 KiB of sevens.
func newImage(t *testing.T, write string) (i *qcow2.Image, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "disk")
	for _, args := range [][]string{
		{"qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4096", path, "128k"},
		{"qemu-io", "-f", "qcow2", "-c", write + " -P 7 0 64k", path},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: install qemu-utils\n%s", args, err, out)
		}
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if i, err = qcow2.Open(qcow2.File{File: f}); err != nil {
		t.Fatal(err)
	}
	return i, path
}

func TestImage(t *testing.T) {
	for _, w := range []string{"write", "write -c"} {
		i, _ := newImage(t, w)
		dev, err := OpenImage(i, Options{ReadOnly: true, Queues: 2, ID: "image"})
		if err != nil {
			t.Fatal(err)
		}
		d := virtiotest.New(t, dev, 0)
		want := append(bytes.Repeat([]byte{7}, 1000), make([]byte, 1048)...)
		for i, got := range d.Do(1, read(128-2, 1000, 24, 1024), read(128+2, 1024), read(254, 512, 512)) {
			b := bytes.Join(got.Write, nil)
			b = b[:len(b)-1]
			if i == 0 && (!bytes.Equal(b[:1000], want[:1000]) || !bytes.Equal(b[1000:1024], want[:24]) || !bytes.Equal(b[1024:], want[1024:])) ||
				i > 0 && !bytes.Equal(b, want[1000:][:len(b)]) || status(got) != statusOK {
				t.Errorf("%s, request %d: status %d, other bytes", w, i, status(got))
			}
		}
		for _, r := range []struct {
			r    virtiotest.Request
			want byte
		}{
			{write(0, make([]byte, 512)), statusError}, {clearing(typeDiscard, 0, 8, 0), statusError}, {read(255, 1024), statusError},
			{virtiotest.Request{Read: [][]byte{header(typeFlush, 0)}, Write: []int{1}}, statusOK},
		} {
			if got := status(d.Do(0, r.r)[0]); got != r.want {
				t.Errorf("%s: status %d, want %d", w, got, r.want)
			}
		}
	}
}

// What cannot be read is an error of the request, and of no other.
func TestDamagedImage(t *testing.T) {
	i, path := newImage(t, "write -c")
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	// The cluster of the first entry of the L2 table, which is the fifth cluster.
	if _, err := file.WriteAt(bytes.Repeat([]byte{0xff}, 8), 4*4096); err != nil {
		t.Fatal(err)
	}
	dev, err := OpenImage(i, Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	d := virtiotest.New(t, dev, 0)
	got := d.Do(0, read(0, 512), read(8, 512))
	if status(got[0]) != statusError || got[0].Len != 1 || status(got[1]) != statusOK || got[1].Write[0][0] != 7 {
		t.Errorf("status %d and %d", status(got[0]), status(got[1]))
	}
	if len(d.Broken()) != 0 {
		t.Error(d.Broken())
	}
}

// An overlay is written to, by drivers that flush and by one that does not.
func TestOverlay(t *testing.T) {
	for _, without := range []uint64{0, featureFlush} {
		low, _ := newImage(t, "write -c")
		f, err := os.Create(filepath.Join(t.TempDir(), "overlay"))
		if err != nil {
			t.Fatal(err)
		}
		top, err := overlay.Open(f, low)
		if err != nil {
			t.Fatal(err)
		}
		dev, err := OpenImage(top, Options{Queues: 2})
		if err != nil {
			t.Fatal(err)
		}
		d := virtiotest.New(t, dev, without)
		data := bytes.Repeat([]byte{9}, 1024)
		for i, r := range []virtiotest.Request{
			write(3, data[:300], data[300:]), clearing(typeWriteZeroes, 4, 1, flagUnmap), clearing(typeDiscard, 16, 8, 0),
			{Read: [][]byte{header(typeFlush, 0)}, Write: []int{1}},
		} {
			if got := status(d.Do(i%2, r)[0]); got != statusOK {
				t.Errorf("request %d: status %d", i, got)
			}
		}
		want := bytes.Repeat([]byte{7}, 64<<10)
		copy(want[3*sector:], data)
		clear(want[4*sector:][:sector])
		clear(want[16*sector:][:8*sector])
		if got := d.Do(0, read(0, 1000, 64<<10-1000))[0]; status(got) != statusOK || !bytes.Equal(bytes.Join(got.Write, nil)[:64<<10], want) {
			t.Errorf("status %d, or other bytes", status(got))
		}
		if got := status(d.Do(0, write(256, data))[0]); got != statusError {
			t.Errorf("behind the end: status %d", got)
		}
	}
}

func TestImagesThatAreNoDisk(t *testing.T) {
	for n, want := range map[int64]error{4096: ErrReadOnly, 511: ErrFile} {
		c := &sized{n: n}
		if _, err := OpenImage(c, Options{ReadOnly: n == 511}); !errors.Is(err, want) || !c.closed {
			t.Errorf("%d bytes: %v, want %v", n, err, want)
		}
	}
}

type sized struct {
	n      int64
	closed bool
}

func (s *sized) Size() int64                    { return s.n }
func (s *sized) ReadVec([][]byte, uint64) error { return nil }
func (s *sized) Close() error                   { s.closed = true; return nil }
