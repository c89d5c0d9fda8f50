// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestManual holds vmctl(1) to the commands and flags that there are, both
// ways.
func TestManual(t *testing.T) {
	text, err := os.ReadFile("../../packaging/man/vmctl.1")
	if err != nil {
		t.Fatal(err)
	}
	manual := string(text)
	known := map[string]bool{"help": true}
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		path := strings.TrimPrefix(cmd.CommandPath(), "vmctl ")
		if cmd.HasParent() && cmd.RunE != nil && path != "vm" && !regexp.MustCompile(`Cm `+path+`\b|Cm tasks Oo Cm list`).MatchString(manual) {
			t.Errorf("the manual has no command %q", path)
		}
		cmd.NonInheritedFlags().VisitAll(func(f *pflag.Flag) {
			known[f.Name] = true
			if !regexp.MustCompile(`Fl -`+f.Name+`\b`).MatchString(manual) && f.Name != "help" {
				t.Errorf("the manual has no --%s of %q", f.Name, path)
			}
		})
		for _, child := range cmd.Commands() {
			walk(child)
		}
	}
	p := &program{getenv: func(string) string { return "" }}
	walk(p.root())
	for _, m := range regexp.MustCompile(`Fl -([a-z-]+)`).FindAllStringSubmatch(manual, -1) {
		if !known[m[1]] {
			t.Errorf("the manual knows --%s, which is none", m[1])
		}
	}
	for _, status := range []string{"0", "1", "2", "3", "4", "5", "6", "130", "141"} {
		if !strings.Contains(manual, "\n.It "+status+"\n") {
			t.Errorf("the manual does not have status %s", status)
		}
	}
}

// TestHelpIsNarrow: the help of every command fits 80 columns.
func TestHelpIsNarrow(t *testing.T) {
	u := newUser(t)
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		words := append(strings.Fields(cmd.CommandPath())[1:], "--help")
		out, errOut, status := u.run(words...)
		if status != 0 || errOut != "" || !strings.Contains(out, "Usage:") {
			t.Errorf("%v: status %d, %q", words, status, errOut)
		}
		for line := range strings.Lines(out) {
			if len(line) > 81 {
				t.Errorf("%v: %d columns: %s", words, len(line)-1, line)
			}
		}
		for _, child := range cmd.Commands() {
			walk(child)
		}
	}
	p := &program{getenv: func(string) string { return "" }}
	walk(p.root())
}
