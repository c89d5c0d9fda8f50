// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// shell is a guest whose shell echoes what is typed, and answers it.
func shell(answer string) *guest {
	r, w := io.Pipe()
	p := newPump(r)
	typed := writer(func(b []byte) (int, error) {
		line := strings.TrimSuffix(string(b), "\n")
		go func() {
			_, _ = io.WriteString(w, line+"\r\nbegin\r\n"+answer+"end\r\nguest# ")
			w.CloseWithError(errors.New("the guest ended"))
		}()
		return len(b), nil
	})
	return &guest{name: "fake", out: p, in: typed, end: func() error { p.drain(); return nil }}
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

func TestLoad(t *testing.T) {
	for _, tt := range []struct {
		name, answer string
		want         float64
		err          string
	}{
		{"good", "4 1000\r\n", 250, ""},
		{"the program fails", "load: /dev/vda: No such file or directory\r\n", 0, "No such file"},
		{"nothing done", "0 1000\r\n", 0, "0 1000"},
		{"silence", "", 0, "load x"},
	} {
		g := shell(tt.answer)
		got, err := g.load("x")
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %v, %v, want %v, %q", tt.name, got, err, tt.want, tt.err)
		}
		if err := g.end(); err != nil {
			t.Error(err)
		}
	}
}

// A guest that ends in the middle of a load is told of with its last words.
func TestLoadOfGuestThatEnds(t *testing.T) {
	r := io.MultiReader(strings.NewReader("begin\r\nKernel panic"), failing{})
	g := &guest{name: "fake", out: newPump(r), in: io.Discard}
	if _, err := g.load("x"); err == nil || !strings.Contains(err.Error(), "Kernel panic") || !strings.Contains(err.Error(), "gone") {
		t.Errorf("%v", err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("gone") }

func TestWithLoader(t *testing.T) {
	dir := t.TempDir()
	initrd, program := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	for path, content := range map[string]string{initrd: "the archive", program: "the program"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path, err := withLoader(initrd, program, dir)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(b, []byte("the archive")) || !bytes.Contains(b, []byte("the program")) || !bytes.Contains(b, []byte("load\x00")) {
		t.Errorf("%q", b)
	}
	if _, err := withLoader(initrd, filepath.Join(dir, "none"), dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a program: %v", err)
	}
}

func TestLoadRows(t *testing.T) {
	rows := loadRows("disk", []compared{{
		"read", "QEMU",
		sample{[]float64{3000, 1000, 2000}, []float64{3, 4, 2}, []float64{0, 0, 0}},
		sample{[]float64{4000}, []float64{2}, []float64{0.5}},
	}})
	want := []struct {
		name, unit  string
		ours, other float64
		met         bool
	}{
		{"disk, read", "us", 2, 4, true},
		{"disk, read", "exits", 3, 2, false},
		{"disk, read, to the monitor", "exits", 0, 0.5, true},
	}
	if len(rows) != len(want) {
		t.Fatalf("%d rows: %+v", len(rows), rows)
	}
	for i, w := range want {
		r := rows[i]
		if r.Name != w.name || r.Unit != w.unit || r.Ours != w.ours || r.Other != w.other || r.Met != w.met || r.Against != "QEMU" {
			t.Errorf("%+v, want %+v", r, w)
		}
	}
}

func TestKVMCount(t *testing.T) {
	dir := t.TempDir()
	guest := func(name, content string) {
		t.Helper()
		folder := filepath.Join(dir, name)
		if err := errors.Join(os.Mkdir(folder, 0o700), os.WriteFile(filepath.Join(folder, allExits), []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := kvmCount(dir, allExits); err == nil {
		t.Error("no guest: no error")
	}
	guest("12-9", "345\n")
	if n, err := kvmCount(dir, allExits); n != 345 || err != nil {
		t.Errorf("%d, %v, want 345", n, err)
	}
	guest("13-9", "1\n")
	if n, err := kvmCount(dir, allExits); n != 346 || err != nil {
		t.Errorf("%d, %v, want 346", n, err)
	}
	guest("14-9", "many\n")
	if _, err := kvmCount(dir, allExits); err == nil {
		t.Error("no number: no error")
	}
}
