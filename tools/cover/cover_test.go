// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	first = `{"format_version":"2","files":[{"file":"kmod/claim.c","lines":[{"line_number":10,"count":3},{"line_number":11,"count":0},
		{"line_number":12,"count":0},{"line_number":14,"count":0}]},{"file":"./include/linux/slab.h","lines":[{"line_number":1,"count":0}]},
		{"file":"kmod/claim_kunit.c","lines":[{"line_number":1,"count":0}]}]}`
	second = `{"files":[{"file":"kmod/vmm_drv.h","lines":[{"line_number":5,"count":1}]}]}`
	third  = `{"files":[{"file":"/somewhere/kmod/claim.c","lines":[{"line_number":10,"count":0},{"line_number":14,"count":9}]}]}`
)

func write(t *testing.T, texts ...string) []string {
	t.Helper()
	var names []string
	for i, text := range texts {
		name := filepath.Join(t.TempDir(), string(rune('a'+i)))
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	return names
}

func TestRunsAddUp(t *testing.T) {
	var out strings.Builder
	err := run(write(t, first+"\n"+second+"\n", third), 60, &out)
	want := "kmod/claim.c             2 of     4   50.0 %  11-12\n" +
		"kmod/vmm_drv.h           1 of     1  100.0 %  \n" +
		"all                      3 of     5   60.0 %\n"
	if err != nil || out.String() != want {
		t.Errorf("%v, got:\n%swant:\n%s", err, out.String(), want)
	}
}

func TestRefusals(t *testing.T) {
	for name, files := range map[string][]string{
		"no file":            nil,
		"a missing one":      {"/nonexistent"},
		"no JSON":            write(t, "kmod"),
		"cut short":          write(t, first[:len(first)-3]),
		"none of the module": write(t, `{"files":[{"file":"kmod/x_kunit.c","lines":[{"line_number":1,"count":1}]}]}`),
		"below the least":    write(t, first),
	} {
		if err := run(files, 60, new(strings.Builder)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestRanges(t *testing.T) {
	if got := ranges([]int{1, 3, 4, 5, 9, 10}); got != "1 3-5 9-10" {
		t.Errorf("%q", got)
	}
}
