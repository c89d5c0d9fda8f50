// SPDX-License-Identifier: Apache-2.0

package klog_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vmctl/tools/lab/klog"
)

// judge feeds a log in pieces of n bytes, as a socket might.
func judge(t *testing.T, log string, n int) *klog.Scanner {
	t.Helper()
	s := klog.NewScanner("lab: begin", "lab: end")
	for len(log) > 0 {
		piece := log[:min(n, len(log))]
		if w, err := s.Write([]byte(piece)); w != len(piece) || err != nil {
			t.Fatalf("Write = %d, %v", w, err)
		}
		log = log[len(piece):]
	}
	return s
}

func framed(body string) string {
	return "[    7.000000] lab: begin\n" + body + "[    9.000000] lab: end\n"
}

// TestKinds reads traces that real kernels wrote. The first line of each file
// is the kind to find, "-" for none.
func TestKinds(t *testing.T) {
	files, err := filepath.Glob("testdata/*.log")
	if err != nil || len(files) == 0 {
		t.Fatalf("no logs: %v", err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want, body, _ := strings.Cut(string(b), "\n")
		for _, n := range []int{1, 7, 1 << 20} {
			t.Run(fmt.Sprintf("%s/%d", filepath.Base(file), n), func(t *testing.T) {
				checkKind(t, judge(t, framed(body), n), want, body)
			})
		}
	}
}

func checkKind(t *testing.T, s *klog.Scanner, want, body string) {
	t.Helper()
	list := s.Complaints()
	if want == "-" {
		if len(list) != 0 {
			t.Errorf("complaint %q where there is none: %v", list[0].Kind, list[0].Trace)
		}
		return
	}
	if len(list) != 1 {
		t.Fatalf("%d complaints, want 1: %+v", len(list), list)
	}
	if list[0].Kind != want {
		t.Errorf("kind %q, want %q", list[0].Kind, want)
	}
	lines := strings.Split(strings.TrimSpace(body), "\n")
	if got := len(list[0].Trace); got != len(lines) {
		t.Errorf("trace of %d lines, want all %d", got, len(lines))
	}
}

func TestOnlyBetweenTheMarks(t *testing.T) {
	warning := "[    1.0] WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2\n[    1.0] ---[ end trace 0 ]---\n"
	s := judge(t, warning+framed("")+warning, 64)
	if n := len(s.Complaints()); n != 0 {
		t.Errorf("%d complaints from outside of the marks", n)
	}
	if !s.Ended() {
		t.Error("end mark not seen")
	}
	s = judge(t, framed(warning), 64)
	if n := len(s.Complaints()); n != 1 {
		t.Errorf("%d complaints from between the marks, want 1", n)
	}
}

func TestOopsInsideOfAWarningIsFatal(t *testing.T) {
	s := judge(t, framed("[1.0] WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2\n[1.0] Oops: 0002 [#1] PREEMPT SMP\n"), 64)
	if list := s.Complaints(); len(list) != 1 || !list[0].Fatal {
		t.Errorf("%+v", list)
	}
}

func TestTwoReports(t *testing.T) {
	one := "[1.0] ------------[ cut here ]------------\n[1.0] WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2\n[1.0] ---[ end trace 0 ]---\n"
	if n := len(judge(t, framed(one+one), 10).Complaints()); n != 2 {
		t.Errorf("%d complaints, want 2", n)
	}
}

func TestAFloodIsBounded(t *testing.T) {
	s := klog.NewScanner("", "")
	line := []byte("[1.0] BUG: something " + strings.Repeat("x", 1<<16) + "\n")
	for range 400 {
		s.Write(line)
	}
	if n := len(s.Log()); n > 16<<20 {
		t.Errorf("log of %d bytes kept", n)
	}
	if s.Dropped() != 400*len(line)-len(s.Log()) {
		t.Errorf("%d bytes dropped of %d, %d kept", s.Dropped(), 400*len(line), len(s.Log()))
	}
	kept := 0
	for _, c := range s.Complaints() {
		for _, l := range c.Trace {
			kept += len(l)
		}
	}
	if kept > 20*130*(4<<10) {
		t.Errorf("%d bytes of traces kept", kept)
	}
}

func TestTail(t *testing.T) {
	s := klog.NewScanner("", "")
	fmt.Fprint(s, "one\ntwo\nthree\n")
	if got := strings.Join(s.Tail(2), ","); got != "two,three" {
		t.Errorf("Tail(2) = %q", got)
	}
	if got := len(s.Tail(10)); got != 3 {
		t.Errorf("Tail(10) has %d lines", got)
	}
}
