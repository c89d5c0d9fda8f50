// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// outcome runs the log through and returns the results, one a line, and the error.
func outcome(t *testing.T, log string) (results, all string, err error) {
	t.Helper()
	var out bytes.Buffer
	err = run(strings.NewReader(log), &out, "p")
	var kept []string
	for line := range strings.Lines(out.String()) {
		if !strings.Contains(line, `"output"`) && !strings.Contains(line, `"run"`) {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, ""), out.String(), err
}

func unitsLog(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("testdata/units.log")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestEachOutcome reads what the kernel said of the module tools/lab/testdata/units.
func TestEachOutcome(t *testing.T) {
	got, all, err := outcome(t, unitsLog(t))
	want := `{"Action":"pass","Package":"p","Test":"units/passes"}
{"Action":"fail","Package":"p","Test":"units/fails"}
{"Action":"skip","Package":"p","Test":"units/skips"}
{"Action":"fail","Package":"p","Test":"units/fails_with_two"}
{"Action":"fail","Package":"p"}
`
	if got != want || err == nil {
		t.Errorf("%v, got:\n%swant:\n%s", err, got, want)
	}
	for _, said := range []string{"EXPECTATION FAILED at kmod/units.c:15", "Expected one == 2, but", "not ok 2 number 2"} {
		if !strings.Contains(all, said) {
			t.Errorf("no %q in:\n%s", said, all)
		}
	}
}

func TestAllPassed(t *testing.T) {
	log := "[    1.0]     # Subtest: s\n[    1.0]     1..1\n[    1.1]     ok 1 a\n[    1.1] # s: pass:1\n[    1.1] ok 1 s\n"
	got, _, err := outcome(t, log)
	want := "{\"Action\":\"pass\",\"Package\":\"p\",\"Test\":\"s/a\"}\n{\"Action\":\"pass\",\"Package\":\"p\"}\n"
	if got != want || err != nil {
		t.Errorf("%v, got:\n%s", err, got)
	}
}

// TestBrokenOff cuts the log at each line: no part of it may pass.
func TestBrokenOff(t *testing.T) {
	passing := "[    1.0] boot\n[    1.0]     # Subtest: s\n[    1.0]     1..2\n[    1.1]     ok 1 a\n[    1.1]     ok 2 b\n[    1.1] ok 1 s\n"
	lines := strings.SplitAfter(passing, "\n")
	for n := range len(lines) - 1 {
		got, _, err := outcome(t, strings.Join(lines[:n], ""))
		if err == nil || !strings.HasSuffix(got, "{\"Action\":\"fail\",\"Package\":\"p\"}\n") {
			t.Errorf("%d lines: %v, %s", n, err, got)
		}
	}
}

func TestMissingResult(t *testing.T) {
	log := "[    1.0]     # Subtest: s\n[    1.0]     1..2\n[    1.1]     ok 1 a\n[    1.1] ok 1 s\n"
	if _, _, err := outcome(t, log); err == nil || !strings.Contains(err.Error(), "1 results of 2 tests") {
		t.Errorf("%v", err)
	}
}
