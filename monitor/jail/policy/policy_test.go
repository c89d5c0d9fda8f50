// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestGeneratedFilterIsThePolicy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "zfilter.go")
	if err := write([]string{path}); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../zfilter.go")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("monitor/jail/zfilter.go is not what the policy makes: run make gen")
	}
}

func TestEveryRuleHasAReason(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range slices.Concat(rules, early) {
		if r.why == "" || len(r.calls) == 0 {
			t.Errorf("rule %+v", r)
		}
		for _, c := range r.calls {
			if seen[c] {
				t.Errorf("%s is named twice", c)
			}
			seen[c] = true
		}
	}
}
