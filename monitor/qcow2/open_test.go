// SPDX-License-Identifier: Apache-2.0

package qcow2_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"vmctl/monitor/qcow2"
)

// made makes an image of 1 MiB with some data in it.
func made(t testing.TB, options string) string {
	t.Helper()
	dir := t.TempDir()
	qemu(t, dir, "qemu-img", "create", "-q", "-f", "qcow2", "-o", options, "f", "1M")
	qemu(t, dir, "qemu-io", "-f", "qcow2", "-c", "write -P 7 0 128k", "-c", "write -z 256k 64k", "f")
	return filepath.Join(dir, "f")
}

// altered writes bytes over a file.
func altered(t testing.TB, path string, off int, b ...byte) string {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, int64(off)); err != nil {
		t.Fatal(err)
	}
	return path
}

func u32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
func u64(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

// What QEMU makes and we do not read is refused with its reason.
func TestRefusedOfQEMU(t *testing.T) {
	dir := t.TempDir()
	img := func(args ...string) {
		t.Helper()
		qemu(t, dir, "qemu-img", append([]string{"create", "-q", "-f"}, args...)...)
	}
	img("qcow2", "-o", "data_file=data", "external", "1M")
	img("qcow2", "-o", "data_file=data,data_file_raw=on", "external-raw", "1M")
	img("qcow2", "--object", "secret,id=s,data=x", "-o", "encrypt.format=aes,encrypt.key-secret=s", "encrypted", "1M")
	img("qcow2", "-o", "lazy_refcounts=on", "dirty", "1M")
	cmd := exec.Command("qemu-io", "-f", "qcow2", "-c", "write 0 64k", "-c", "abort", filepath.Join(dir, "dirty"))
	if cmd.Run() == nil {
		t.Fatal("qemu-io abort: no error")
	}
	img("vmdk", "vmdk", "1M")
	img("qed", "qed", "1M")
	img("raw", "raw", "1M")
	for name, want := range map[string]error{
		"external": qcow2.ErrDataFile, "external-raw": qcow2.ErrDataFile, "encrypted": qcow2.ErrEncrypted,
		"dirty": qcow2.ErrDirty, "vmdk": qcow2.ErrMagic, "qed": qcow2.ErrMagic, "raw": qcow2.ErrMagic,
	} {
		if _, err := qcow2.Open(open(t, filepath.Join(dir, name), false)); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}

func TestRefusedHeaders(t *testing.T) {
	for name, c := range map[string]struct {
		options string
		off     int
		b       []byte
		want    error
	}{
		"other magic":               {"", 0, []byte{'q'}, qcow2.ErrMagic},
		"version 1":                 {"", 4, u32(1), qcow2.ErrVersion},
		"version 4":                 {"", 4, u32(4), qcow2.ErrVersion},
		"clusters of 256 bytes":     {"", 20, u32(8), qcow2.ErrHeader},
		"clusters of 4 MiB":         {"", 20, u32(22), qcow2.ErrHeader},
		"clusters of 2^64 bytes":    {"", 20, u32(64), qcow2.ErrHeader},
		"huge disk":                 {"", 24, u64(1 << 63), qcow2.ErrHeader},
		"larger than its L1 table":  {"", 24, u64(1 << 62), qcow2.ErrHeader},
		"encrypted by AES":          {"", 32, u32(1), qcow2.ErrEncrypted},
		"encrypted, who knows how":  {"", 32, u32(9), qcow2.ErrEncrypted},
		"no L1 table":               {"", 36, u32(0), qcow2.ErrHeader},
		"huge L1 table":             {"", 36, u32(1 << 31), qcow2.ErrHeader},
		"L1 table not aligned":      {"", 40, u64(196609), qcow2.ErrHeader},
		"L1 table behind the file":  {"", 40, u64(1 << 40), qcow2.ErrHeader},
		"L1 table far away":         {"", 40, u64(1<<64 - 1<<16), qcow2.ErrHeader},
		"L1 table at 0":             {"", 40, u64(0), qcow2.ErrHeader},
		"dirty":                     {"", 72, u64(1 << 0), qcow2.ErrDirty},
		"corrupt":                   {"", 72, u64(1 << 1), qcow2.ErrMarked},
		"external data":             {"", 72, u64(1 << 2), qcow2.ErrDataFile},
		"compression without type":  {"", 72, u64(1 << 3), qcow2.ErrHeader},
		"type without its feature":  {"compression_type=zstd", 72, u64(0), qcow2.ErrHeader},
		"unknown compression":       {"compression_type=zstd", 104, []byte{2}, qcow2.ErrCompression},
		"feature of tomorrow":       {"", 72, u64(1 << 5), qcow2.ErrFeature},
		"last feature":              {"", 72, u64(1 << 63), qcow2.ErrFeature},
		"subclusters of 256 bytes":  {"cluster_size=8192", 72, u64(1 << 4), qcow2.ErrHeader},
		"short header":              {"", 100, u32(96), qcow2.ErrHeader},
		"header of a word's part":   {"", 100, u32(105), qcow2.ErrHeader},
		"header past its cluster":   {"cluster_size=512", 100, u32(520), qcow2.ErrHeader},
		"long extension":            {"", 116, u32(1 << 31), qcow2.ErrHeader},
		"extension of 2^32-1 bytes": {"", 116, u32(1<<32 - 1), qcow2.ErrHeader},
		"long name of a backing":    {"", 8, append(u64(512), u32(1024)...), qcow2.ErrHeader},
		"name past the cluster":     {"cluster_size=512", 8, append(u64(500), u32(13)...), qcow2.ErrHeader},
		"name in the header":        {"", 8, append(u64(100), u32(8)...), qcow2.ErrHeader},
		"name far away":             {"", 8, append(u64(1<<63), u32(8)...), qcow2.ErrHeader},
		"a backing file":            {"", 8, append(u64(1024), u32(8)...), qcow2.ErrNoBacking},
	} {
		t.Run(name, func(t *testing.T) {
			options := "compat=1.1"
			if c.options != "" {
				options += "," + c.options
			}
			path := altered(t, made(t, options), c.off, c.b...)
			if _, err := qcow2.Open(open(t, path, false)); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

// Features that do not keep anyone from reading are none of ours.
func TestUnknownButCompatible(t *testing.T) {
	path := altered(t, made(t, "compat=1.1"), 80, append(u64(1<<62), u64(1<<62)...)...)
	if b, err := readAll(open(t, path, false)); err != nil || len(b) != 1<<20 || b[131071] != 7 || b[131072] != 0 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

func TestFilesThatAreNone(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := qcow2.Open(qcow2.File{File: r}); !errors.Is(err, qcow2.ErrFile) {
		t.Errorf("pipe: %v", err)
	}
	if err := r.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the file of a disk that could not be opened: %v", err)
	}
	empty := filepath.Join(t.TempDir(), "f")
	for n, want := range map[int64]error{0: qcow2.ErrMagic, 7: qcow2.ErrMagic, 71: qcow2.ErrHeader, 103: qcow2.ErrHeader, 4096: qcow2.ErrHeader} {
		whole, err := os.ReadFile(made(t, "compat=1.1"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(empty, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := qcow2.Open(open(t, empty, false)); !errors.Is(err, want) {
			t.Errorf("%d bytes: %v, want %v", n, err, want)
		}
	}
}

// A chain is what was given, and every image agrees.
func TestChains(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	img := func(args ...string) {
		t.Helper()
		qemu(t, dir, "qemu-img", append([]string{"create", "-q", "-f", "qcow2"}, args...)...)
	}
	if err := os.WriteFile(at("raw"), bytes.Repeat([]byte{5}, 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	img("base", "64k")
	img("-b", "base", "-F", "qcow2", "mid", "1M")
	img("-b", "raw", "-F", "raw", "on-raw", "1M")
	img("-o", "compat=0.10", "-b", "mid", "-F", "qcow2", "top", "1M")
	img("-u", "-b", "/dev/zero", "-F", "host_device", "device", "1M")
	img("-u", "-b", "x", "-F", "vmdk", "foreign", "1M")
	file := func(name string) qcow2.File { return open(t, at(name), name == "raw") }
	for _, c := range []struct {
		name  string
		files []string
		want  error
	}{
		{"whole", []string{"top", "mid", "base"}, nil},
		{"whole on raw", []string{"on-raw", "raw"}, nil},
		{"device", []string{"device", "raw"}, nil},
		{"raw alone", []string{"raw"}, nil},
		{"none", nil, qcow2.ErrFiles},
		{"without base", []string{"top", "mid"}, qcow2.ErrNoBacking},
		{"too many", []string{"base", "raw"}, qcow2.ErrBacking},
		{"raw in between", []string{"raw", "base"}, qcow2.ErrFiles},
		{"raw for qcow2", []string{"mid", "raw"}, qcow2.ErrBackingFormat},
		{"qcow2 for raw", []string{"on-raw", "base"}, qcow2.ErrBackingFormat},
		{"format that we do not have", []string{"foreign", "raw"}, qcow2.ErrBackingFormat},
	} {
		var files []qcow2.File
		for _, f := range c.files {
			files = append(files, file(f))
		}
		i, err := qcow2.Open(files...)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if err == nil {
			i.Close()
		}
	}
	var many []qcow2.File
	for range qcow2.MaxFiles + 1 {
		many = append(many, file("mid"))
	}
	if _, err := qcow2.Open(many...); !errors.Is(err, qcow2.ErrFiles) {
		t.Errorf("a long chain: %v", err)
	}
	// An image that is its own backing file ends where the list does.
	many = many[:0]
	for range qcow2.MaxFiles - 1 {
		many = append(many, file("mid"))
	}
	if b, err := readAll(append(many, file("base"))...); err != nil || len(b) != 1<<20 {
		t.Errorf("itself, often: %d bytes, %v", len(b), err)
	}
	b, err := readAll(file("on-raw"), file("raw"))
	if err != nil || !bytes.Equal(b[:1000], bytes.Repeat([]byte{5}, 1000)) || !bytes.Equal(b[1000:], make([]byte, 1<<20-1000)) {
		t.Errorf("on a raw file of 1000 bytes: %v", err)
	}
	i, err := qcow2.Open(file("on-raw"), file("raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	if i.BackingName(0) != "raw" || i.BackingName(1) != "" {
		t.Errorf("backing files %q and %q", i.BackingName(0), i.BackingName(1))
	}
}

func TestBounds(t *testing.T) {
	i, err := qcow2.Open(open(t, made(t, "compat=1.1"), false))
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	b := make([]byte, 512)
	for _, c := range []struct {
		off  int64
		n    int
		want error
	}{
		{0, 512, nil}, {1<<20 - 512, 512, nil}, {1<<20 - 511, 511, io.EOF}, {1 << 20, 0, io.EOF}, {1 << 62, 0, io.EOF}, {-1, 0, qcow2.ErrBounds},
	} {
		if n, err := i.ReadAt(b, c.off); n != c.n || !errors.Is(err, c.want) {
			t.Errorf("from %d on: %d bytes, %v", c.off, n, err)
		}
	}
	for _, off := range []uint64{1<<20 - 511, 1 << 20, 1 << 63, 1<<64 - 1} {
		if err := i.ReadVec([][]byte{b}, off); !errors.Is(err, qcow2.ErrBounds) {
			t.Errorf("512 bytes from %d on: %v", off, err)
		}
	}
	if err := i.ReadVec(nil, 1<<20); err != nil {
		t.Errorf("nothing: %v", err)
	}
}

// A table that is damaged is an error where it is met, and no other place suffers.
func TestDamagedTables(t *testing.T) {
	const l1, l2 = 3 << 16, 4 << 16 // as qemu-img places them
	for name, c := range map[string]struct {
		off     int
		v       uint64
		options string
	}{
		"L2 table not aligned":       {l1, 1<<63 | l2 | 512, ""},
		"L2 table behind the file":   {l1, 1<<63 | 1<<40, ""},
		"reserved bits of L1":        {l1, 1<<63 | l2 | 1, ""},
		"cluster not aligned":        {l2, 1<<63 | 5<<16 | 512, ""},
		"cluster behind the file":    {l2, 1<<63 | 1<<40, ""},
		"reserved bits of L2":        {l2, 1<<63 | 5<<16 | 2, ""},
		"zero flag in version 2":     {l2, 1<<63 | 5<<16 | 1, "compat=0.10"},
		"compressed, behind":         {l2, 1<<62 | 1<<50, ""},
		"compressed, to the end":     {l2, 1<<62 - 1 | 1<<62, ""},
		"compressed, is not":         {l2, 1<<62 | 5<<16, ""},
		"compressed, is the header":  {l2, 1 << 62, ""},
		"zstd, is not":               {l2, 1<<62 | 5<<16, "compression_type=zstd"},
		"zstd, is the header":        {l2, 1 << 62, "compression_type=zstd"},
		"both allocated and zeros":   {l2 + 8, 1<<32 | 1, "extended_l2=on"},
		"allocated nowhere":          {l2, 0, "extended_l2=on"},
		"reserved bits of a cluster": {l2, 1<<63 | 5<<16 | 1, "extended_l2=on"},
	} {
		t.Run(name, func(t *testing.T) {
			options := c.options
			if options == "" {
				options = "compat=1.1"
			}
			path := altered(t, made(t, options), c.off, u64(c.v)...)
			i, err := qcow2.Open(open(t, path, false))
			if err != nil {
				t.Fatal(err)
			}
			defer i.Close()
			b := make([]byte, 4096)
			if _, err := i.ReadAt(b, 0); !errors.Is(err, qcow2.ErrCorrupt) {
				t.Errorf("%v, want %v", err, qcow2.ErrCorrupt)
			}
			if _, err := i.ReadAt(b, 65536); c.off >= l2 && (err != nil || b[0] != 7) {
				t.Errorf("the next cluster: %v, %d", err, b[0])
			}
		})
	}
}

// A file that was cut is an error, not zeros.
func TestCutFile(t *testing.T) {
	path := made(t, "compat=1.1")
	f := open(t, path, false)
	i, err := qcow2.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	if err := os.Truncate(path, 5<<16+512); err != nil {
		t.Fatal(err)
	}
	if _, err := i.ReadAt(make([]byte, 4096), 0); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut while open: %v", err)
	}
	// What was cut before, in the first of two clusters.
	if b, err := readAll(open(t, path, false)); !errors.Is(err, qcow2.ErrCorrupt) {
		t.Errorf("cut before: %d bytes, %v", len(b), err)
	}
}

// memfile is a file of bytes.
func memfile(t testing.TB, b []byte) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("image", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "image")
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	return f
}

// Whatever an image holds, opening and reading it ends, with bytes or an error.
func FuzzImage(f *testing.F) {
	for _, o := range []string{
		"cluster_size=512", "cluster_size=512,compat=0.10", "cluster_size=512,compression_type=zstd",
		"cluster_size=16k,extended_l2=on",
	} {
		dir := f.TempDir()
		qemu(f, dir, "qemu-img", "create", "-q", "-f", "qcow2", "-o", o, "f", "64k")
		qemu(f, dir, "qemu-io", "-f", "qcow2", "-c", "write -c -P 7 0 16k", "-c", "write -c -P 8 16k 16k", "-c", "write -P 9 32k 3k", "-c", "write -z 35k 3k", "f")
		b, err := os.ReadFile(filepath.Join(dir, "f"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, []byte("base"), true)
		f.Add(b, b, false)
		f.Add(altered2(b), b, false)
	}
	f.Fuzz(func(t *testing.T, image, base []byte, raw bool) {
		files := []qcow2.File{{File: memfile(t, image)}}
		if len(image) > 16 && binary.BigEndian.Uint64(image[8:]) != 0 {
			files = append(files, qcow2.File{File: memfile(t, base), Raw: raw})
		}
		i, err := qcow2.Open(files...)
		if err != nil {
			return
		}
		defer i.Close()
		b := make([]byte, 64<<10)
		for _, off := range []int64{0, 64 << 10, i.Size()/2 - 777, i.Size() - 4096} {
			if off < 0 {
				continue
			}
			if n, err := i.ReadAt(b, off); n > 0 && err != nil && err != io.EOF {
				t.Errorf("%d bytes and %v", n, err)
			}
		}
	})
}

// altered2 is an image that has a backing file: its own last bytes are the name.
func altered2(b []byte) []byte {
	b = bytes.Clone(b)
	copy(b[8:], append(u64(400), u32(4)...))
	return b
}
