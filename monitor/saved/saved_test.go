// SPDX-License-Identifier: Apache-2.0

package saved_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"vmctl/monitor/mem"
	"vmctl/monitor/saved"
	"vmctl/monitor/wire"
)

const ram = 8 << 20

func newFiles(t testing.TB) saved.Files {
	t.Helper()
	var f [2]*os.File
	for i, name := range []string{"state", "memory"} {
		var err error
		if f[i], err = os.Create(filepath.Join(t.TempDir(), name)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f[i].Close() })
	}
	return saved.Files{State: f[0], Memory: f[1]}
}

// write saves a memory with something in it.
func write(t testing.TB, f saved.Files) *mem.Memory {
	t.Helper()
	m, err := mem.New(ram)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	for _, at := range []uint64{0, 4095, 12345, 3 << 20, 5<<20 - 1, ram - 1} {
		if err := m.Write(at, []byte{byte(at>>3) | 1}); err != nil {
			t.Fatal(err)
		}
	}
	err = f.Write(m, func(w *saved.Writer) error {
		w.Section("one", func(w *wire.Writer) { w.U64(42) })
		w.Section("two", func(w *wire.Writer) { w.String("text") })
		return nil
	}, func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestComesBack(t *testing.T) {
	f := newFiles(t)
	m := write(t, f)
	r, err := f.Read(ram)
	if err != nil {
		t.Fatal(err)
	}
	r.Section("one", func(r *wire.Reader) {
		if got := r.U64(); got != 42 {
			t.Errorf("got %d", got)
		}
	})
	r.Section("two", func(r *wire.Reader) {
		if got := r.String(10); got != "text" {
			t.Errorf("got %q", got)
		}
	})
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	back, err := mem.New(ram)
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	if err := back.MapFile(int(f.Memory.Fd())); err != nil {
		t.Fatal(err)
	}
	want, _ := m.At(0, ram)
	got, _ := back.At(0, ram)
	if !bytes.Equal(got, want) {
		t.Error("memory differs")
	}
	// What the guest writes is not the file's, and power-on is without it.
	got[5000] = 7
	if b := make([]byte, 1); true {
		if _, err := f.Memory.ReadAt(b, 5000); err != nil || b[0] != 0 {
			t.Errorf("the file has %d, %v", b[0], err)
		}
	}
	if err := back.Clear(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, make([]byte, ram)) {
		t.Error("cleared memory is not zero")
	}
}

func TestZerosTakeNoRoom(t *testing.T) {
	f := newFiles(t)
	write(t, f)
	st, err := f.Memory.Stat()
	if err != nil || st.Size() != ram+4096 {
		t.Fatalf("%v, %v", st, err)
	}
	var data int64
	for at := int64(0); ; {
		from, err := f.Memory.Seek(at, 3) // SEEK_DATA
		if err != nil {
			break
		}
		if at, err = f.Memory.Seek(from, 4); err != nil { // SEEK_HOLE
			t.Fatal(err)
		}
		data += at - from
	}
	if data > 64<<10 {
		t.Errorf("%d bytes of data for 6 pages and one", data)
	}
}

func TestWhatIsNoSave(t *testing.T) {
	edit := func(f *os.File, at int64, b ...byte) func() error {
		return func() error { _, err := f.WriteAt(b, at); return err }
	}
	for _, c := range []struct {
		name string
		ram  uint64
		bend func(f, other saved.Files) func() error
		want error
	}{
		{"empty state", ram, func(f, _ saved.Files) func() error { return func() error { return f.State.Truncate(0) } }, saved.ErrTruncated},
		{"cut header", ram, func(f, _ saved.Files) func() error { return func() error { return f.State.Truncate(50) } }, saved.ErrTruncated},
		{"cut body", ram, func(f, _ saved.Files) func() error { return func() error { return f.State.Truncate(80) } }, saved.ErrTruncated},
		{"longer state", ram, func(f, _ saved.Files) func() error { return edit(f.State, 1000, 1) }, saved.ErrAltered},
		{"other file", ram, func(f, _ saved.Files) func() error { return edit(f.State, 0, 'V') }, saved.ErrNotSave},
		{"newer version", ram, func(f, _ saved.Files) func() error { return edit(f.State, 8, saved.Version+1) }, saved.ErrVersion},
		{"reserved", ram, func(f, _ saved.Files) func() error { return edit(f.State, 12, 1) }, saved.ErrAltered},
		{"huge length", ram, func(f, _ saved.Files) func() error { return edit(f.State, 23, 0x7f) }, saved.ErrAltered},
		{"altered sum", ram, func(f, _ saved.Files) func() error { return edit(f.State, 24, 0, 1, 2) }, saved.ErrAltered},
		{"altered body", ram, func(f, _ saved.Files) func() error { return edit(f.State, 70, 9, 9, 9) }, saved.ErrAltered},
		{"more memory", 2 * ram, func(saved.Files, saved.Files) func() error { return nil }, saved.ErrForeign},
		{"cut memory", ram, func(f, _ saved.Files) func() error { return func() error { return f.Memory.Truncate(ram) } }, saved.ErrTruncated},
		{"longer memory", ram, func(f, _ saved.Files) func() error { return edit(f.Memory, ram+4096, 1) }, saved.ErrAltered},
		{"altered memory", ram, func(f, _ saved.Files) func() error { return edit(f.Memory, 4096, 1) }, saved.ErrAltered},
		{"touched memory", ram, func(f, _ saved.Files) func() error {
			return func() error { return os.Chtimes(f.Memory.Name(), time.Time{}, time.Now()) }
		}, saved.ErrAltered},
		{"no memory", ram, func(f, _ saved.Files) func() error { return edit(f.Memory, ram, 'x') }, saved.ErrNotSave},
		{"memory of another", ram, func(f, other saved.Files) func() error {
			return func() error {
				b := make([]byte, 4096)
				if _, err := other.Memory.ReadAt(b, ram); err != nil {
					return err
				}
				_, err := f.Memory.WriteAt(b, ram)
				return err
			}
		}, saved.ErrForeign},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, other := newFiles(t), newFiles(t)
			write(t, f)
			write(t, other)
			if do := c.bend(f, other); do != nil {
				if err := do(); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := f.Read(c.ram); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestSectionsThatAreOthers(t *testing.T) {
	nothing := func(*wire.Reader) {}
	for name, read := range map[string]func(*saved.Reader){
		"other name":    func(r *saved.Reader) { r.Section("two", nothing) },
		"half":          func(r *saved.Reader) { r.Section("one", func(r *wire.Reader) { r.U32() }) },
		"too much":      func(r *saved.Reader) { r.Section("one", func(r *wire.Reader) { r.U64(); r.U8() }) },
		"one is left":   func(r *saved.Reader) { r.Section("one", func(r *wire.Reader) { r.U64() }) },
		"another value": func(r *saved.Reader) { r.Section("one", func(r *wire.Reader) { saved.Same(r, []byte("x")) }) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFiles(t)
			write(t, f)
			r, err := f.Read(ram)
			if err != nil {
				t.Fatal(err)
			}
			read(r)
			if err := r.Close(); !errors.Is(err, saved.ErrForeign) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestWriteEndsEarly(t *testing.T) {
	m, err := mem.New(ram)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	stop := errors.New("stop")
	none := func(*saved.Writer) error { return nil }
	f := newFiles(t)
	if err := f.Write(m, none, func() error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
	if _, err := f.Read(ram); !errors.Is(err, saved.ErrTruncated) {
		t.Errorf("half a save: %v", err)
	}
	// What was written is of no moment that there was.
	f, asked := newFiles(t), 0
	late := func() error {
		if asked++; asked > 1 {
			return stop
		}
		return nil
	}
	if err := f.Write(m, none, late); !errors.Is(err, stop) {
		t.Errorf("a guest that went on at the end: %v", err)
	}
	if _, err := f.Read(ram); !errors.Is(err, saved.ErrTruncated) {
		t.Errorf("a save without a state: %v", err)
	}
	f = newFiles(t)
	write(t, f)
	if err := f.Write(m, none, func() error { return nil }); !errors.Is(err, saved.ErrNotEmpty) {
		t.Errorf("over another: %v", err)
	}
}

// FuzzRead reads hostile states, whose sums are right or not.
func FuzzRead(f *testing.F) {
	files := newFiles(f)
	write(f, files)
	good, err := os.ReadFile(files.State.Name())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, state []byte) {
		if err := files.State.Truncate(0); err != nil {
			t.Fatal(err)
		}
		if _, err := files.State.WriteAt(state, 0); err != nil {
			t.Fatal(err)
		}
		r, err := files.Read(ram)
		if err != nil {
			return
		}
		r.Section("one", func(r *wire.Reader) { r.U64() })
		r.Section("two", func(r *wire.Reader) { r.String(10) })
		_ = r.Close()
	})
}
