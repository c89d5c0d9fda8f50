// SPDX-License-Identifier: Apache-2.0

// Tally adds up the results of all suites of a test run and ends with one line,
// "N passed, N failed, N skipped". It fails when a test failed or none ran.
//
// It reads *.json files of a folder: event streams of go test (-json), and the
// reports of Vitest and Playwright.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// count is how many tests of a suite ended how.
type count struct{ passed, failed, skipped int }

func (c *count) add(o count) {
	c.passed += o.passed
	c.failed += o.failed
	c.skipped += o.skipped
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: tally FOLDER")
		os.Exit(2)
	}
	total, err := tally(os.Args[1], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "tally:", err)
		os.Exit(1)
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", total.passed, total.failed, total.skipped)
	if total.failed > 0 || total.passed == 0 {
		os.Exit(1)
	}
}

// tally counts every report in dir and prints a row for each.
func tally(dir string, out io.Writer) (count, error) {
	var total count
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return total, err
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return total, err
		}
		c, err := parse(b)
		if err != nil {
			return total, fmt.Errorf("%s: %w", f, err)
		}
		fmt.Fprintf(out, "%-28s %5d passed %5d failed %5d skipped\n", filepath.Base(f), c.passed, c.failed, c.skipped)
		total.add(c)
	}
	return total, nil
}

// parse tells the three formats apart by their first object.
func parse(b []byte) (count, error) {
	var report struct {
		NumPassed  *int `json:"numPassedTests"`
		NumFailed  int  `json:"numFailedTests"`
		NumPending int  `json:"numPendingTests"`
		Stats      *struct{ Expected, Unexpected, Flaky, Skipped int }
	}
	if err := json.Unmarshal(b, &report); err == nil {
		switch {
		case report.NumPassed != nil:
			return count{*report.NumPassed, report.NumFailed, report.NumPending}, nil
		case report.Stats != nil:
			return count{report.Stats.Expected, report.Stats.Unexpected + report.Stats.Flaky, report.Stats.Skipped}, nil
		}
	}
	return parseGo(b)
}

// parseGo counts tests, and packages that failed without a failed test: a
// build error or a panic must not look like nothing.
func parseGo(b []byte) (count, error) {
	var c count
	failedIn := map[string]bool{}
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e struct{ Action, Package, Test string }
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return c, err
		}
		switch {
		case e.Test == "":
			if e.Action == "fail" && !failedIn[e.Package] {
				c.failed++
			}
		case e.Action == "pass":
			c.passed++
		case e.Action == "fail":
			failedIn[e.Package] = true
			c.failed++
		case e.Action == "skip":
			c.skipped++
		}
	}
	return c, lines.Err()
}
