// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"strconv"
)

// suite is what the kernel said about one suite of unit tests.
type suite struct {
	name    string
	planned int
	cases   []testCase
	done    bool     // its own result was seen
	failed  bool     // and that was "not ok"
	said    []string // since the last case
}

// testCase is one result.
type testCase struct {
	name   string
	action string // pass, fail or skip
	said   []string
}

// Lines of KTAP, as KUnit writes them: a suite is indented by four, its own
// result is not. Deeper ones are of a test's parameters, whose sum is a line of
// the suite.
var (
	stamp   = regexp.MustCompile(`^(?:<\d+>)?\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? `)
	title   = regexp.MustCompile(`^ {4}# Subtest: (\S+)`)
	plan    = regexp.MustCompile(`^ {4}1\.\.(\d+)`)
	result  = regexp.MustCompile(`^( {4})?(not )?ok \d+(?: -)? (\S+)(?: # (SKIP))?`)
	comment = regexp.MustCompile(`^ {4,}\S`)
)

// parse finds the suites in a log, in their order. Other lines, which may stand
// anywhere between, are passed over.
func parse(log io.Reader) ([]*suite, error) {
	var list []*suite
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := stamp.ReplaceAllString(lines.Text(), "")
		if m := title.FindStringSubmatch(line); m != nil {
			list = append(list, &suite{name: m[1]})
			continue
		}
		if len(list) > 0 && !list[len(list)-1].done {
			list[len(list)-1].take(line)
		}
	}
	return list, lines.Err()
}

// take reads one line of the suite.
func (s *suite) take(line string) {
	if m := plan.FindStringSubmatch(line); m != nil {
		s.planned, _ = strconv.Atoi(m[1])
		return
	}
	m := result.FindStringSubmatch(line)
	switch {
	case m == nil && comment.MatchString(line):
		s.said = append(s.said, line)
	case m == nil:
	case m[1] != "":
		c := testCase{name: m[3], action: "pass"}
		switch {
		case m[4] != "":
			c.action = "skip"
		case m[2] != "":
			c.action, c.said = "fail", s.said
		}
		s.cases = append(s.cases, c)
		s.said = nil
	case m[3] == s.name:
		s.done, s.failed = true, m[2] != ""
	}
}

// broken says what is wrong with the suite beside its failed cases.
func (s *suite) broken() string {
	switch {
	case !s.done:
		return "broken off"
	case len(s.cases) != s.planned:
		return fmt.Sprintf("%d results of %d tests", len(s.cases), s.planned)
	case !s.failed:
		return ""
	}
	for _, c := range s.cases {
		if c.action == "fail" {
			return "" // told there
		}
	}
	return "failed as a whole"
}
