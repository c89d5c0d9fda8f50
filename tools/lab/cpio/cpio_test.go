// SPDX-License-Identifier: Apache-2.0

package cpio_test

import (
	"bytes"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"vmctl/tools/lab/cpio"
)

func sample(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := cpio.NewWriter(&b)
	for _, err := range []error{
		w.File("a/b/file", 0o640, []byte("12345")),
		w.File("a/b/other", 0o755, nil),
		w.Dir("a/b", 0o700),
		w.Dir("d", 0o1777),
		w.Symlink("bin/sh", "busybox"),
		w.CharDevice("dev/console", 0o600, 5, 1),
		w.Close(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// entry is what the test's own reader finds; it follows the format's text, not
// the writer.
type entry struct {
	name         string
	mode, nlink  uint64
	major, minor uint64
	data         string
}

func hex(t *testing.T, b []byte) (n uint64) {
	t.Helper()
	for _, c := range b {
		i := strings.IndexByte("0123456789ABCDEF", c)
		if i < 0 {
			t.Fatalf("no hexadecimal digit: %q", b)
		}
		n = n<<4 | uint64(i)
	}
	return n
}

func read(t *testing.T, b []byte) (list []entry) {
	t.Helper()
	for off := 0; ; {
		if string(b[off:off+6]) != "070701" {
			t.Fatalf("no magic at %d", off)
		}
		field := func(i int) uint64 { return hex(t, b[off+6+8*i:off+14+8*i]) }
		size, nameSize := int(field(6)), int(field(11))
		name := b[off+110 : off+110+nameSize]
		if name[nameSize-1] != 0 {
			t.Fatalf("name %q does not end with a zero", name)
		}
		data := (off + 110 + nameSize + 3) &^ 3
		e := entry{string(name[:nameSize-1]), field(1), field(4), field(9), field(10), string(b[data : data+size])}
		if e.name == "TRAILER!!!" {
			return list
		}
		list = append(list, e)
		off = (data + size + 3) &^ 3
	}
}

func TestEntries(t *testing.T) {
	want := []entry{
		{"a", 0o040755, 1, 0, 0, ""},
		{"a/b", 0o040755, 1, 0, 0, ""},
		{"a/b/file", 0o100640, 1, 0, 0, "12345"},
		{"a/b/other", 0o100755, 1, 0, 0, ""},
		{"d", 0o041777, 1, 0, 0, ""},
		{"bin", 0o040755, 1, 0, 0, ""},
		{"bin/sh", 0o120777, 1, 0, 0, "busybox"},
		{"dev", 0o040755, 1, 0, 0, ""},
		{"dev/console", 0o020600, 1, 5, 1, ""},
	}
	got := read(t, sample(t))
	if len(got) != len(want) {
		t.Fatalf("%d entries, want %d: %v", len(got), len(want), got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("entry %d: %+v, want %+v", i, got[i], want[i])
		}
	}
}

func TestSameCallsSameBytes(t *testing.T) {
	if !bytes.Equal(sample(t), sample(t)) {
		t.Error("two archives of the same calls differ")
	}
}

func TestBadNames(t *testing.T) {
	for _, name := range []string{"", "/etc/passwd", "../up", "a/../b", "a//b", "./a", "a/"} {
		w := cpio.NewWriter(&bytes.Buffer{})
		if err := w.File(name, 0o644, nil); !errors.Is(err, cpio.ErrName) {
			t.Errorf("File(%q) = %v, want ErrName", name, err)
		}
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("disk is full") }

func TestWriteErrorIsReturned(t *testing.T) {
	if err := cpio.NewWriter(full{}).File("a", 0o644, []byte("x")); err == nil {
		t.Error("no error from a writer that fails")
	}
}

// TestCpioReadsIt asks the real program, where there is one.
func TestCpioReadsIt(t *testing.T) {
	path, err := exec.LookPath("cpio")
	if err != nil {
		t.Log("no cpio on this host; the format is checked by TestEntries")
		return
	}
	cmd := exec.Command(path, "-t", "--quiet")
	cmd.Stdin = bytes.NewReader(sample(t))
	out, err := cmd.Output()
	if err != nil || !strings.Contains(string(out), "dev/console") {
		t.Errorf("cpio -t: %v: %s", err, out)
	}
}
