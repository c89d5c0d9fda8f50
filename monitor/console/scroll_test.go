// SPDX-License-Identifier: Apache-2.0

package console_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"vmctl/monitor/console"
)

func scrollFile(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "console.log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func openScroll(t *testing.T, f *os.File) *console.Scroll {
	t.Helper()
	s, err := console.OpenScroll(f)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// model is all that was ever printed.
type model []byte

// check reads everything that is kept and compares it.
func (m model) check(t *testing.T, s *console.Scroll) {
	t.Helper()
	if s.Total() != uint64(len(m)) {
		t.Fatalf("total %d, want %d", s.Total(), len(m))
	}
	var kept uint64
	buf := make([]byte, 100_000)
	for at := uint64(0); at < s.Total(); {
		at = s.Next(at)
		n, err := s.Read(at, buf)
		if err != nil || n == 0 {
			t.Fatalf("at %d of %d: %d bytes, %v", at, s.Total(), n, err)
		}
		if !bytes.Equal(buf[:n], m[at:at+uint64(n)]) {
			t.Fatalf("other bytes at %d", at)
		}
		at, kept = at+uint64(n), kept+uint64(n)
	}
	if want := uint64(min(len(m), 2*console.Keep)); kept != want {
		t.Errorf("%d bytes kept, want %d", kept, want)
	}
}

func TestScrollAgainstAllThatWasPrinted(t *testing.T) {
	f := scrollFile(t)
	s := openScroll(t, f)
	r := rand.New(rand.NewPCG(1, 2))
	var m model
	for len(m) < 5*console.Keep {
		p := make([]byte, r.IntN(400_000))
		for i := range p {
			p[i] = byte(r.Uint32())
		}
		if err := s.Append(p); err != nil {
			t.Fatal(err)
		}
		m = append(m, p...)
		m.check(t, s)
		m.check(t, openScroll(t, f)) // as the next monitor finds it
	}
	if info, err := f.Stat(); err != nil || info.Size() > console.ScrollSize {
		t.Errorf("file has %d bytes, %v", info.Size(), err)
	}
}

func TestOtherFilesAreRefused(t *testing.T) {
	for _, text := range []string{"x", "vmctl-scroll-1\n\x00", "vmctl-scroll-1\n\x00\xff\xff\xff\xff\xff\xff\xff\xff", "something else, long enough for a header"} {
		f := scrollFile(t)
		f.WriteString(text)
		if _, err := console.OpenScroll(f); !errors.Is(err, console.ErrScroll) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestCutFile(t *testing.T) {
	f := scrollFile(t)
	s := openScroll(t, f)
	if err := s.Append(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(4096 + 10); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(0, make([]byte, 100)); !errors.Is(err, console.ErrScroll) {
		t.Errorf("got %v", err)
	}
}

// full is a file on a full disk.
type full struct{ *os.File }

var errFull = errors.New("disk is full")

func (full) WriteAt([]byte, int64) (int, error) { return 0, errFull }

func TestFullDiskKeepsTheEnd(t *testing.T) {
	f := scrollFile(t)
	s := openScroll(t, f)
	if err := s.Append([]byte("abc")); err != nil {
		t.Fatal(err)
	}
	s, err := console.OpenScroll(full{f})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Append([]byte("def")); !errors.Is(err, errFull) || s.Total() != 3 {
		t.Errorf("total %d, %v", s.Total(), err)
	}
}
