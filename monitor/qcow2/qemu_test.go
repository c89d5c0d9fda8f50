// SPDX-License-Identifier: Apache-2.0

package qcow2_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"vmctl/monitor/qcow2"
)

// qemu runs one of QEMU's programs in a folder.
func qemu(t testing.TB, dir, name string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%v: install qemu-utils", err)
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

func open(t testing.TB, path string, raw bool) qcow2.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return qcow2.File{File: f, Raw: raw}
}

// world is a chain of images that QEMU makes and changes at random.
type world struct {
	t     *testing.T
	r     *rand.Rand
	dir   string
	files []string // the image first
	raw   bool     // the last one
	size  int64
	names int
	saved string // a snapshot inside the image, "": it has none
}

func (w *world) img(args ...string) { w.t.Helper(); qemu(w.t, w.dir, "qemu-img", args...) }

func (w *world) new() string {
	w.names++
	return fmt.Sprintf("f%d", w.names)
}

func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

// options are those of a new image.
func (w *world) options() (string, int64) {
	bits := 9 + w.r.IntN(13)
	o := "cluster_size=" + strconv.Itoa(1<<bits)
	if w.r.IntN(5) == 0 {
		o += ",compat=0.10"
	} else {
		o += ",compat=1.1,refcount_bits=" + pick(w.r, "8", "16", "64") + ",compression_type=" + pick(w.r, "zlib", "zstd") + ",lazy_refcounts=" + pick(w.r, "on", "off")
		if bits >= 14 && w.r.IntN(2) == 0 {
			o += ",extended_l2=on"
		}
	}
	return o, 1 << bits
}

// add puts a new image in front of the chain.
func (w *world) add() {
	options, cluster := w.options()
	name := w.new()
	size := w.size + int64(w.r.IntN(5)-2)*(512<<w.r.IntN(10))
	args := []string{"create", "-q", "-f", "qcow2"}
	if len(w.files) > 0 {
		options += ",backing_file=" + w.files[0] + ",backing_fmt=" + w.format()
	} else {
		options += ",preallocation=" + pick(w.r, "off", "off", "metadata", "falloc", "full")
	}
	w.size = max(size, 64<<10)
	w.img(append(args, "-o", options, name, strconv.FormatInt(w.size, 10))...)
	w.files = append([]string{name}, w.files...)
	w.saved = ""
	w.change(cluster)
	w.reshape(!strings.Contains(options, "compat=0.10"))
	w.change(cluster)
	if w.r.IntN(3) == 0 {
		w.pack(options)
	}
}

func (w *world) format() string {
	if len(w.files) == 1 && w.raw {
		return "raw"
	}
	return "qcow2"
}

// reshape gives the image what a snapshot of it has, or if it is of version 3 another size,
// which QEMU cannot give to all of version 2, and a longer header.
func (w *world) reshape(version3 bool) {
	switch {
	case w.saved != "":
		w.img("snapshot", "-a", w.saved, w.files[0])
	case version3 && w.r.IntN(2) == 0:
		w.size = max(w.size+int64(w.r.IntN(5)-2)*(512<<w.r.IntN(13)), 64<<10)
		w.img("resize", "-q", "-f", "qcow2", "--shrink", w.files[0], strconv.FormatInt(w.size, 10))
	}
	if version3 && w.r.IntN(2) == 0 {
		w.img("bitmap", "-f", "qcow2", "--add", w.files[0], w.new())
	}
}

// pack compresses all of the image.
func (w *world) pack(options string) {
	name := w.new()
	args := []string{"convert", "-c", "-f", "qcow2", "-O", "qcow2"}
	if i := bytes.Index([]byte(options), []byte(",preallocation")); i >= 0 {
		options = options[:i]
	}
	w.img(append(args, "-o", options, w.files[0], name)...)
	w.files[0] = name
}

// change writes to the image.
func (w *world) change(cluster int64) {
	for range 1 + w.r.IntN(3) {
		args := []string{"-f", "qcow2", "-d", "unmap"}
		for range 2 + w.r.IntN(20) {
			args = append(args, "-c", w.command(cluster))
		}
		w.io(append(args, w.files[0])...)
		if w.r.IntN(3) == 0 {
			w.saved = w.new()
			w.img("snapshot", "-c", w.saved, w.files[0])
		}
	}
}

// refusedIO is how QEMU refuses to compress a cluster over one that is there.
var refusedIO = []byte("write failed: Input/output error")

func (w *world) io(args ...string) {
	w.t.Helper()
	cmd := exec.Command("qemu-io", args...)
	cmd.Dir = w.dir
	out, err := cmd.CombinedOutput()
	if err != nil && (!bytes.Contains(out, refusedIO) || bytes.Count(out, []byte("failed")) != bytes.Count(out, refusedIO)) {
		w.t.Fatalf("qemu-io %q: %v\n%s", args, err, out)
	}
}

func (w *world) command(cluster int64) string {
	step := pick(w.r, 512, 4096, cluster, cluster)
	step = max(min(step, w.size/4&^511), 512)
	off := w.r.Int64N(w.size/step) * step
	n := min((1+w.r.Int64N(8))*step, w.size-off)
	switch w.r.IntN(8) {
	case 0:
		return fmt.Sprintf("write -z %d %d", off, n)
	case 1:
		return fmt.Sprintf("write -z -u %d %d", off, n)
	case 2:
		return fmt.Sprintf("discard %d %d", off, n)
	case 3:
		// With clusters of 512 bytes QEMU 7.2 writes over its own tables.
		if step = cluster; w.size >= step && step > 512 {
			off = w.r.Int64N(w.size/step) * step
			return fmt.Sprintf("write -c -s %s %d %d", pick(w.r, "text", "text2"), off, step)
		}
	}
	return fmt.Sprintf("write -s %s %d %d", pick(w.r, "text", "text2", "noise"), off, n)
}

// open opens the chain.
func (w *world) open() *qcow2.Image {
	w.t.Helper()
	var files []qcow2.File
	for i, f := range w.files {
		files = append(files, open(w.t, filepath.Join(w.dir, f), w.raw && i == len(w.files)-1))
	}
	i, err := qcow2.Open(files...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { i.Close() })
	return i
}

// want is what QEMU reads.
func (w *world) want() []byte {
	w.t.Helper()
	w.img("convert", "-f", "qcow2", "-O", "raw", w.files[0], "out.raw")
	b, err := os.ReadFile(filepath.Join(w.dir, "out.raw"))
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, r: rand.New(rand.NewPCG(seed, 1)), dir: t.TempDir()}
	w.size = int64(128+w.r.IntN(16<<10)) * 512
	noise, text := make([]byte, 40009), []byte(nil)
	for i := range noise {
		noise[i] = byte(w.r.Uint32())
	}
	for i := range 9001 {
		text = fmt.Appendf(text, "%d,", i)
	}
	for name, b := range map[string][]byte{"noise": noise, "text": text, "text2": text[13:]} {
		if err := os.WriteFile(filepath.Join(w.dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// What QEMU's programs made of images by random operations reads as they read it.
func TestAsQEMU(t *testing.T) {
	for seed := range uint64(16) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, seed)
			if w.raw = w.r.IntN(3) == 0; w.raw {
				base := bytes.Repeat([]byte("base "), int(w.size)/5)
				w.files = []string{w.new()}
				if err := os.WriteFile(filepath.Join(w.dir, w.files[0]), base[:w.r.IntN(len(base))], 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for range 1 + w.r.IntN(4) {
				w.add()
			}
			i, want := w.open(), w.want()
			if i.Size() != int64(len(want)) {
				t.Fatalf("%d bytes, QEMU says %d", i.Size(), len(want))
			}
			all := make([]byte, len(want)+1)
			if n, err := i.ReadAt(all, 0); n != len(want) || err != io.EOF || !bytes.Equal(all[:n], want) {
				t.Fatalf("all: %d bytes of %d, %v; differs at %d", n, len(want), err, differ(all, want))
			}
			var readers sync.WaitGroup
			for reader := range uint64(4) {
				readers.Go(func() { randomReads(t, rand.New(rand.NewPCG(seed, reader)), i, want) })
			}
			readers.Wait()
		})
	}
}

func randomReads(t *testing.T, r *rand.Rand, i *qcow2.Image, want []byte) {
	for range 25 {
		off := r.IntN(len(want))
		var bufs, used [][]byte
		var n int
		for range 1 + r.IntN(6) {
			b := make([]byte, min(r.IntN(1<<r.IntN(18)), len(want)-off-n))
			n += len(b)
			bufs, used = append(bufs, b), append(used, b)
		}
		if err := i.ReadVec(used, uint64(off)); err != nil {
			t.Errorf("%d bytes from %d on: %v", n, off, err)
		}
		if got := bytes.Join(bufs, nil); !bytes.Equal(got, want[off:off+n]) {
			t.Errorf("%d bytes from %d on: differ at %d", n, off, differ(got, want[off:]))
		}
	}
}

func differ(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

// Where images are damaged, they read as QEMU reads them or not at all.
func TestDamaged(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 100+seed)
			w.size = 1 << 20
			cluster := pick[int64](w.r, 4096, 1024, 16384)
			options := "compression_type=zstd,cluster_size=" + strconv.FormatInt(cluster, 10)
			if cluster == 16384 {
				options += ",extended_l2=on"
			}
			w.img("create", "-q", "-f", "qcow2", "-o", options, "f", "1M")
			w.files = []string{"f"}
			w.change(cluster)
			path := filepath.Join(w.dir, "f")
			whole, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			refused, same := 0, 0
			for range 40 {
				b := bytes.Clone(whole)
				for range 1 + w.r.IntN(3) {
					// In tables, mostly: they are among the first clusters.
					b[w.r.IntN(min(len(b), 1<<(9+w.r.IntN(10))))] ^= 1 << w.r.IntN(8)
				}
				if err := os.WriteFile(path, b, 0o600); err != nil {
					t.Fatal(err)
				}
				got, err := readAll(open(t, path, false))
				if err != nil {
					refused++
					continue
				}
				cmd := exec.Command("qemu-img", "convert", "-f", "qcow2", "-O", "raw", "f", "out")
				cmd.Dir = w.dir
				if cmd.Run() != nil {
					continue
				}
				want, err := os.ReadFile(filepath.Join(w.dir, "out"))
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, want) {
					t.Errorf("reads other bytes than QEMU: %d and %d, differ at %d", len(got), len(want), differ(got, want))
				}
				same++
			}
			t.Logf("refused %d, same %d", refused, same)
		})
	}
}

var errLarge = errors.New("too large to read whole")

func readAll(files ...qcow2.File) ([]byte, error) {
	i, err := qcow2.Open(files...)
	if err != nil {
		return nil, err
	}
	defer i.Close()
	if i.Size() > 64<<20 {
		return nil, errLarge
	}
	b := make([]byte, i.Size())
	_, err = i.ReadAt(b, 0)
	return b, err
}
