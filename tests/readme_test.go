// SPDX-License-Identifier: Apache-2.0

// Package tests holds the list of bad inputs in README.md to the tests that it names.
package tests

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	reFolder = regexp.MustCompile("^`([a-z0-9/]+)` ")
	reTest   = regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w*`)
)

func TestListOfBadInputs(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) != 4 || !reTest.MatchString(cells[2]) {
			continue
		}
		rows++
		for part := range strings.SplitSeq(cells[2], ";") {
			folder := reFolder.FindStringSubmatch(strings.TrimSpace(part))
			tests := reTest.FindAllString(part, -1)
			if folder == nil || len(tests) == 0 {
				t.Errorf("%q names no folder and test", part)
				continue
			}
			code := testFiles(t, filepath.Join("..", folder[1]))
			for _, name := range tests {
				if !strings.Contains(code, "\nfunc "+name+"(") {
					t.Errorf("%s has no %s", folder[1], name)
				}
			}
		}
	}
	if rows < 14 {
		t.Errorf("%d rows", rows)
	}
}

// testFiles is the text of all tests in a folder.
func testFiles(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		code.Write(text)
	}
	return code.String()
}
