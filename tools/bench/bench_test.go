// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRows(t *testing.T) {
	for _, tt := range []struct {
		name string
		row  row
		met  bool
	}{
		{"below", against("a", "b", "s", 1, 2, 1, 0), true},
		{"at the goal", against("a", "b", "s", 101, 100, 1.01, 0), true},
		{"above", against("a", "b", "s", 102, 100, 1.01, 0), false},
		{"within the band", against("a", "b", "s", 1.02, 1, 1, 0.03), true},
		{"no peer", against("a", "b", "s", 1, 0, 1, 0), false},
		{"nothing of ours", against("a", "b", "s", 0, 1, 1, 0), false},
		{"none on both sides", noMore("a", "b", "exits", 0, 0), true},
		{"none of ours", noMore("a", "b", "exits", 0, 1), true},
		{"none of theirs", noMore("a", "b", "exits", 1, 0), false},
		{"under budget", limit("a", "bytes", 5<<20, 5<<20), true},
		{"over budget", limit("a", "bytes", 5<<20+1, 5<<20), false},
		{"budget, not measured", limit("a", "bytes", 0, 5<<20), false},
	} {
		if tt.row.Met != tt.met {
			t.Errorf("%s: met %v, want %v: %+v", tt.name, tt.row.Met, tt.met, tt.row)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		v    []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 2, 3}, 2.5}} {
		if got := median(tt.v); got != tt.want {
			t.Errorf("median of %v: %v, want %v", tt.v, got, tt.want)
		}
	}
}

func TestSave(t *testing.T) {
	path := filepath.Join(t.TempDir(), "build", "bench.json")
	want := against("exit", "/dev/kvm", "instructions", 3083, 3055, 1.01, 0)
	if err := save(path, []row{want}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got []map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"name", "ours", "other", "against", "unit", "ratio", "goal", "met"} {
		if _, ok := got[0][key]; !ok {
			t.Errorf("no %q in %s", key, b)
		}
	}
	var out bytes.Buffer
	if err := table(&out, []row{want}); err != nil || !strings.Contains(out.String(), "1.009") {
		t.Errorf("table %v:\n%s", err, out.String())
	}
}

const smaps = `00400000-00500000 r-xp 00000000 00:1d 12345 /usr/bin/vmx
Size:               1024 kB
Shared_Clean:        100 kB
Private_Clean:       200 kB
Private_Dirty:         0 kB
7f0000000000-7f0020000000 rw-p 00000000 00:00 0
Private_Clean:         0 kB
Private_Dirty:     90000 kB
7fff00000000-7fff00021000 rw-p 00000000 00:00 0                          [stack]
Private_Clean:         4 kB
Private_Dirty:        12 kB
Private_Hugetlb:       0 kB
`

func TestSumPrivate(t *testing.T) {
	got, err := sumPrivate(strings.NewReader(smaps), 512<<20)
	if err != nil || got != 216<<10 {
		t.Errorf("%d, %v, want %d", got, err, 216<<10)
	}
	for name, text := range map[string]string{
		"empty":          "",
		"without guest":  strings.Replace(smaps, "7f0020000000 rw", "7f0020001000 rw", 1),
		"not writable":   strings.Replace(smaps, "7f0020000000 rw", "7f0020000000 --", 1),
		"odd number":     strings.Replace(smaps, "200 kB", "many", 1),
		"no mapping row": "Private_Dirty: 1 kB\n",
	} {
		if _, err := sumPrivate(strings.NewReader(text), 512<<20); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestWaitMarker(t *testing.T) {
	if err := waitMarker(strings.NewReader("booting\n"+marker+"\nmore"), marker); err != nil {
		t.Error(err)
	}
	err := waitMarker(strings.NewReader("line\nKernel panic - not syncing"), marker)
	if err == nil || !strings.Contains(err.Error(), "Kernel panic") {
		t.Errorf("%v, want an error with what the guest printed", err)
	}
	if err := waitMarker(strings.NewReader(strings.Repeat("x", 2<<20)), marker); err == nil || len(err.Error()) > 3<<20 {
		t.Errorf("a guest that prints without end: %.80v", err)
	}
}
