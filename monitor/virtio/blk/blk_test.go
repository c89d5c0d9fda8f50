// SPDX-License-Identifier: Apache-2.0

package blk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/monitor/virtio"
	"vmctl/monitor/virtio/virtiotest"
)

const diskSectors = 256

// withWorkers is a disk on a host that refuses rings.
type withWorkers struct{ *Device }

func (d withWorkers) Attach([]int) error {
	d.engine = newWorkers(d.Device)
	return nil
}

// disk is a disk of random sectors behind a driver.
func disk(t testing.TB, workers bool, o Options, without uint64) (*virtiotest.Driver, string, []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	content := make([]byte, diskSectors*sector)
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	flags := os.O_RDWR
	if o.ReadOnly {
		flags = os.O_RDONLY
	}
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	d, err := Open(f, o)
	if err != nil {
		t.Fatal(err)
	}
	var dev virtio.Device = d
	if workers {
		dev = withWorkers{d}
	}
	drv := virtiotest.New(t, dev, without)
	if _, ring := d.engine.(*rings); ring == workers {
		t.Skip("this host refuses rings")
	}
	return drv, path, content
}

// both runs a test on both engines.
func both(t *testing.T, test func(t *testing.T, workers bool)) {
	t.Run("rings", func(t *testing.T) { test(t, false) })
	t.Run("workers", func(t *testing.T) { test(t, true) })
}

func header(kind uint32, first uint64) []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, uint64(kind)), first)
}

func read(first uint64, sizes ...int) virtiotest.Request {
	return virtiotest.Request{Read: [][]byte{header(typeIn, first)}, Write: append(sizes, 1)}
}

func write(first uint64, data ...[]byte) virtiotest.Request {
	return virtiotest.Request{Read: append([][]byte{header(typeOut, first)}, data...), Write: []int{1}}
}

func clearing(kind uint32, first uint64, sectors, flags uint32) virtiotest.Request {
	r := binary.LittleEndian.AppendUint64(nil, first)
	r = binary.LittleEndian.AppendUint32(r, sectors)
	return virtiotest.Request{Read: [][]byte{header(kind, 0), binary.LittleEndian.AppendUint32(r, flags)}, Write: []int{1}}
}

// status is the last byte that the device wrote.
func status(r virtiotest.Result) byte {
	last := r.Write[len(r.Write)-1]
	return last[len(last)-1]
}

func TestReadAndWrite(t *testing.T) {
	both(t, func(t *testing.T, workers bool) {
		d, path, content := disk(t, workers, Options{Queues: 2}, 0)
		got := d.Do(0, read(3, 512, 1024), read(diskSectors-1, 512), read(0, 4096))
		if status(got[0]) != 0 || got[0].Len != 1537 || !bytes.Equal(got[0].Write[0], content[1536:2048]) || !bytes.Equal(got[0].Write[1], content[2048:3072]) {
			t.Errorf("read: status %d, %d bytes", status(got[0]), got[0].Len)
		}
		if !bytes.Equal(got[1].Write[0], content[len(content)-512:]) || !bytes.Equal(got[2].Write[0], content[:4096]) {
			t.Error("read: other bytes")
		}
		a, b := bytes.Repeat([]byte{1}, 300), bytes.Repeat([]byte{2}, 724)
		if w := d.Do(1, write(5, a, b)); status(w[0]) != 0 || w[0].Len != 1 {
			t.Errorf("write: status %d, %d bytes", status(w[0]), w[0].Len)
		}
		copy(content[5*sector:], append(a, b...))
		if f := d.Do(0, virtiotest.Request{Read: [][]byte{header(typeFlush, 0)}, Write: []int{1}}); status(f[0]) != 0 {
			t.Errorf("flush: status %d", status(f[0]))
		}
		if file, err := os.ReadFile(path); err != nil || !bytes.Equal(file, content) {
			t.Errorf("the file differs: %v", err)
		}
		if len(d.Broken()) != 0 {
			t.Error(d.Broken())
		}
	})
}

// A header and a status may be anywhere in a chain.
func TestAnyLayout(t *testing.T) {
	both(t, func(t *testing.T, workers bool) {
		d, _, content := disk(t, workers, Options{}, 0)
		h := header(typeIn, 2)
		got := d.Do(0, virtiotest.Request{Read: [][]byte{h[:3], h[3:]}, Write: []int{100, 413}})
		if status(got[0]) != 0 || !bytes.Equal(append(bytes.Clone(got[0].Write[0]), got[0].Write[1][:412]...), content[1024:1536]) {
			t.Errorf("read: status %d", status(got[0]))
		}
		data := bytes.Repeat([]byte{7}, 512)
		if w := d.Do(0, virtiotest.Request{Read: [][]byte{append(header(typeOut, 9), data...)}, Write: []int{1}}); status(w[0]) != 0 {
			t.Errorf("write: status %d", status(w[0]))
		}
		if got := d.Do(0, read(9, 512)); !bytes.Equal(got[0].Write[0], data) {
			t.Error("written in one buffer with its header: other bytes")
		}
	})
}

func TestWhatIsRefused(t *testing.T) {
	page := make([]byte, 4096)
	both(t, func(t *testing.T, workers bool) {
		for name, c := range map[string]struct {
			readOnly bool
			r        virtiotest.Request
			want     byte
		}{
			"read behind the end":     {false, read(diskSectors, 512), statusError},
			"read over the end":       {false, read(diskSectors-1, 1024), statusError},
			"read far away":           {false, read(1<<63, 512), statusError},
			"read of half a sector":   {false, read(0, 256), statusError},
			"read of nothing":         {false, read(0), statusError},
			"write over the end":      {false, write(diskSectors-7, page), statusError},
			"write to read-only":      {true, write(0, page), statusError},
			"discard on read-only":    {true, clearing(typeDiscard, 0, 8, 0), statusError},
			"zeros on read-only":      {true, clearing(typeWriteZeroes, 0, 8, 0), statusError},
			"discard over the end":    {false, clearing(typeDiscard, diskSectors-1, 2, 0), statusError},
			"discard of nothing":      {false, clearing(typeDiscard, 0, 0, 0), statusError},
			"discard with a flag":     {false, clearing(typeDiscard, 0, 8, 1), statusUnsupported},
			"zeros with unknown flag": {false, clearing(typeWriteZeroes, 0, 8, 2), statusUnsupported},
			"zeros far away":          {false, clearing(typeWriteZeroes, 1<<62, 8, 0), statusError},
			"short range":             {false, virtiotest.Request{Read: [][]byte{header(typeDiscard, 0), page[:15]}, Write: []int{1}}, statusError},
			"two ranges":              {false, virtiotest.Request{Read: [][]byte{header(typeDiscard, 0), page[:32]}, Write: []int{1}}, statusError},
			"short id":                {false, virtiotest.Request{Read: [][]byte{header(typeGetID, 0)}, Write: []int{19, 1}}, statusError},
			"unknown request":         {false, virtiotest.Request{Read: [][]byte{header(99, 0)}, Write: []int{1}}, statusUnsupported},
		} {
			t.Run(name, func(t *testing.T) {
				d, path, content := disk(t, workers, Options{ReadOnly: c.readOnly}, 0)
				if got := status(d.Do(0, c.r)[0]); got != c.want {
					t.Errorf("status %d, want %d", got, c.want)
				}
				if file, err := os.ReadFile(path); err != nil || !bytes.Equal(file, content) {
					t.Errorf("the file differs: %v", err)
				}
			})
		}
	})
}

func TestNoRequest(t *testing.T) {
	both(t, func(t *testing.T, workers bool) {
		for name, r := range map[string]virtiotest.Request{
			"short header": {Read: [][]byte{header(typeIn, 0)[:15]}, Write: []int{1}},
			"no status":    {Read: [][]byte{header(typeFlush, 0)}},
		} {
			d, _, _ := disk(t, workers, Options{}, 0)
			if d.Do(0, r); len(d.Broken()) != 1 || !errors.Is(d.Broken()[0], virtio.ErrRequest) {
				t.Errorf("%s: told %v", name, d.Broken())
			}
		}
	})
}

func TestDiscardAndZeros(t *testing.T) {
	both(t, func(t *testing.T, workers bool) {
		d, path, content := disk(t, workers, Options{}, 0)
		for i, r := range []virtiotest.Request{
			clearing(typeDiscard, 8, 8, 0), clearing(typeWriteZeroes, 24, 8, 0), clearing(typeWriteZeroes, 40, 16, flagUnmap),
		} {
			switch s := status(d.Do(0, r)[0]); s {
			case statusOK:
				first := []int{8, 24, 40}[i] * sector
				clear(content[first:][:[]int{8, 8, 16}[i]*sector])
			case statusUnsupported: // by the file system
			default:
				t.Errorf("%d: status %d", i, s)
			}
		}
		if file, err := os.ReadFile(path); err != nil || !bytes.Equal(file, content) {
			t.Errorf("the file differs: %v", err)
		}
	})
}

func TestIdentity(t *testing.T) {
	both(t, func(t *testing.T, workers bool) {
		d, _, _ := disk(t, workers, Options{ID: "a serial number", Queues: 9}, 0)
		got := d.Do(0, virtiotest.Request{Read: [][]byte{header(typeGetID, 0)}, Write: []int{5, 15, 1}})
		id := append(bytes.Clone(got[0].Write[0]), got[0].Write[1]...)
		if status(got[0]) != 0 || got[0].Len != 21 || string(bytes.TrimRight(id, "\x00")) != "a serial number" {
			t.Errorf("%q, status %d, %d bytes", id, status(got[0]), got[0].Len)
		}
		if n := binary.LittleEndian.Uint64(d.Config(cfgCapacity, 8)); n != diskSectors {
			t.Errorf("%d sectors", n)
		}
		if n := binary.LittleEndian.Uint16(d.Config(cfgQueues, 2)); n != MaxQueues {
			t.Errorf("%d queues", n)
		}
	})
}

// Queues are served side by side, by a driver that does not flush, and a reset does
// not disturb what was written.
func TestManyQueuesAndResets(t *testing.T) {
	both(t, func(t *testing.T, workers bool) {
		d, path, content := disk(t, workers, Options{Queues: MaxQueues}, featureFlush)
		for range 5 {
			var all sync.WaitGroup
			for q := range MaxQueues {
				all.Go(func() {
					r := rand.New(rand.NewPCG(uint64(q), 1))
					for range 100 {
						first := uint64(q*diskSectors/MaxQueues) + r.Uint64N(diskSectors/MaxQueues-8)
						data := bytes.Repeat([]byte{byte(r.Uint32())}, sector*(1+r.IntN(8)))
						copy(content[first*sector:], data)
						for _, got := range d.Do(q, write(first, data)) {
							if status(got) != 0 {
								t.Errorf("status %d", status(got))
							}
						}
						if got := d.Do(q, read(first, len(data)))[0]; !bytes.Equal(got.Write[0], data) {
							t.Error("other bytes than were written")
						}
					}
				})
			}
			all.Wait()
			d.Reset()
			d.Start(0)
		}
		if file, err := os.ReadFile(path); err != nil || !bytes.Equal(file, content) {
			t.Errorf("the file differs: %v", err)
		}
	})
}

// A reset waits for what is under way: memory stays as it is afterwards.
func TestResetUnderLoad(t *testing.T) {
	both(t, func(t *testing.T, workers bool) {
		d, _, content := disk(t, workers, Options{Queues: 2}, 0)
		for range 300 {
			a := d.Begin(0, read(0, 4096, 4096), read(8, 4096), read(16, 8192))
			d.Begin(1, read(0, 4096), read(8, 4096))
			d.Reset()
			for _, r := range a {
				clear(r.Write[0])
			}
			for _, r := range a {
				if !bytes.Equal(r.Write[0], make([]byte, len(r.Write[0]))) {
					t.Fatal("written to after the reset")
				}
			}
			d.Start(0)
		}
		if got := d.Do(0, read(0, 4096)); !bytes.Equal(got[0].Write[0], content[:4096]) {
			t.Error("other bytes")
		}
	})
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "disk")
	open := func(size int, flags int) error {
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, flags, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Open(f, Options{})
		return err
	}
	if err := open(511, os.O_RDWR); !errors.Is(err, ErrFile) {
		t.Errorf("no sector: %v", err)
	}
	if err := open(512, os.O_RDONLY); !errors.Is(err, ErrReadOnly) {
		t.Errorf("not open for writing: %v", err)
	}
	fd, err := unix.Eventfd(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(os.NewFile(uintptr(fd), "eventfd"), Options{}); !errors.Is(err, ErrFile) {
		t.Errorf("an eventfd: %v", err)
	}
}

// What a short transfer left goes on where it ended.
func TestCutShort(t *testing.T) {
	r := &request{do: actRead, off: 1000, size: 30, data: [][]byte{make([]byte, 10), make([]byte, 20)}}
	for _, step := range []struct {
		res   int
		errno unix.Errno
		done  bool
		left  []int
	}{{4, 0, false, []int{6, 20}}, {0, unix.EINTR, false, []int{6, 20}}, {6, 0, false, []int{20}}, {19, 0, false, []int{1}}, {1, 0, true, nil}} {
		done := r.done(step.res, step.errno, false)
		var left []int
		for _, b := range r.data {
			left = append(left, len(b))
		}
		if done != step.done || len(left) != len(step.left) || len(left) > 0 && left[0] != step.left[0] {
			t.Errorf("after %+v: done %v, %v left", step, done, left)
		}
	}
	if r.answer != 0 || r.off != 1030 {
		t.Errorf("%+v", r)
	}
	for range maxTries - 1 {
		if r.done(0, unix.EAGAIN, false) {
			t.Fatal("gives up early")
		}
	}
	if !r.done(0, unix.EAGAIN, false) || r.answer != statusError {
		t.Error("does not give up")
	}
}

// Where writes go through, zeros are on the medium before they are acknowledged.
func TestZerosGoThrough(t *testing.T) {
	r := &request{do: actAllocate}
	if r.done(0, 0, true) || r.do != actSync || !r.done(0, 0, true) {
		t.Errorf("%+v, want a sync", r)
	}
}

// A chain may hold anything: it is answered or breaks the device, and the disk
// keeps its size.
func FuzzRequest(f *testing.F) {
	f.Add(header(typeIn, 1), uint16(512), uint16(1), uint8(16))
	f.Add(append(header(typeOut, 1), make([]byte, 512)...), uint16(1), uint16(0), uint8(20))
	f.Add(clearing(typeDiscard, 0, 8, 0).Read[1], uint16(1), uint16(0), uint8(0))
	f.Fuzz(func(t *testing.T, out []byte, first, second uint16, cut uint8) {
		d, path, _ := disk(t, true, Options{}, 0)
		out = out[:min(len(out), 8192)]
		r := virtiotest.Request{}
		for at := min(int(cut), len(out)); len(out) > 0; at = len(out) {
			if at > 0 {
				r.Read = append(r.Read, out[:at])
			}
			out = out[at:]
		}
		for _, n := range []uint16{first, second} {
			if n > 0 {
				r.Write = append(r.Write, int(n)%16384+1)
			}
		}
		if len(r.Read)+len(r.Write) == 0 {
			return
		}
		if got := d.Do(0, r); len(d.Broken()) > 0 {
			return
		} else if s := status(got[0]); s > statusUnsupported {
			t.Errorf("status %d", s)
		}
		if info, err := os.Stat(path); err != nil || info.Size() != diskSectors*sector {
			t.Fatalf("the file: %v, %v", info, err)
		}
	})
}

// ringFD is the number of the one ring that this process has.
func ringFD(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if to, _ := os.Readlink("/proc/self/fd/" + e.Name()); to == "anon_inode:[io_uring]" {
			fd, err := strconv.Atoi(e.Name())
			if err != nil {
				t.Fatal(err)
			}
			return fd
		}
	}
	t.Fatal("no ring is open")
	return -1
}

// A ring that the kernel refuses for a while breaks the disk. It is not stopped
// before what was under way is over.
func TestRingThatFails(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "disk")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(8 << 20); err != nil {
		t.Fatal(err)
	}
	d, err := Open(f, Options{})
	if err != nil {
		t.Fatal(err)
	}
	drv := virtiotest.New(t, d, 0)
	e, ok := d.engine.(*rings)
	if !ok {
		t.Skip("this host refuses rings")
	}
	fd := ringFD(t)
	kept, err := unix.Dup(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(kept)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	data := bytes.Repeat([]byte{1}, 48<<10)
	drv.Begin(0, write(0, data), write(96, data), write(192, data), write(288, data))
	if err := unix.Dup3(int(null.Fd()), fd, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	drv.Begin(0, read(0, 512))
	for end := time.Now().Add(20 * time.Second); len(drv.Broken()) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the disk is not broken")
		}
	}
	if err := unix.Dup3(kept, fd, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	drv.Reset()
	if n := len(e.live) - len(e.idle); n != 0 {
		t.Errorf("stopped with %d requests under way", n)
	}
}
