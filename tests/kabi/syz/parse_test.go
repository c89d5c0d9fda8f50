// SPDX-License-Identifier: Apache-2.0

package syz

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// expr is a type or a constant: a name, a number, a string or a range, with
// arguments in brackets.
type expr struct {
	name string
	args []expr
}

type member struct {
	name string
	typ  expr
}

// group is a structure or a union, or a template of one.
type group struct {
	params  []string
	members []member
	union   bool
}

type syscall struct {
	name   string // before the dollar
	args   []member
	result string
}

// description is what both files say.
type description struct {
	groups    map[string]group
	aliases   map[string]group // one member, the type
	resources map[string]string
	flags     map[string][]string
	calls     map[string]syscall
	names     map[string]bool // all that is used, types and constants
}

var (
	groupLine    = regexp.MustCompile(`^(?:type )?([a-z]\w*(?:\$\w+)?)(?:\[([A-Z, ]+)\])? ([{[])$`)
	groupEnd     = regexp.MustCompile(`^[}\]]( \[[a-z_, ]+\])?$`)
	memberLine   = regexp.MustCompile(`^\t(\w+)\t+([^\t]+?)(?:\t\((?:in|out|inout)\))?$`)
	aliasLine    = regexp.MustCompile(`^type (\w+)\[([A-Z, ]+)\] (.+)$`)
	resourceLine = regexp.MustCompile(`^resource (\w+)\[(\w+)\]$`)
	flagsLine    = regexp.MustCompile(`^(\w+) = (.+)$`)
	callLine     = regexp.MustCompile(`^(\w+)\$(\w+)\((.*)\)(?: (\w+))?$`)
	skipLine     = regexp.MustCompile(`^(#|include <|meta )|^$`)
)

// parse reads the files; a line that it does not understand is an error.
func parse(t *testing.T, files ...string) *description {
	t.Helper()
	d := &description{
		groups: map[string]group{}, aliases: map[string]group{}, resources: map[string]string{},
		flags: map[string][]string{}, calls: map[string]syscall{}, names: map[string]bool{},
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(text), "\n")
		for i := 0; i < len(lines); i++ {
			if skipLine.MatchString(lines[i]) {
				continue
			}
			if n, err := d.declaration(lines[i:]); err != nil {
				t.Errorf("%s:%d: %v", file, i+1, err)
			} else {
				i += n
			}
		}
	}
	return d
}

// declaration reads one, and returns how many more lines it took.
func (d *description) declaration(lines []string) (int, error) {
	line := lines[0]
	if m := groupLine.FindStringSubmatch(line); m != nil {
		return d.group(m, lines[1:])
	}
	if m := resourceLine.FindStringSubmatch(line); m != nil {
		return 0, define(d.resources, m[1], m[2])
	}
	if m := callLine.FindStringSubmatch(line); m != nil {
		return 0, d.call(m)
	}
	if m := flagsLine.FindStringSubmatch(line); m != nil {
		return 0, define(d.flags, m[1], strings.Split(m[2], ", "))
	}
	if m := aliasLine.FindStringSubmatch(line); m != nil {
		typ, err := d.expr(m[3])
		if err != nil {
			return 0, err
		}
		return 0, define(d.aliases, m[1], group{params: strings.Split(m[2], ", "), members: []member{{"", typ}}})
	}
	return 0, fmt.Errorf("cannot be read: %q", line)
}

func define[V any](in map[string]V, name string, v V) error {
	if _, there := in[name]; there {
		return fmt.Errorf("%s is there twice", name)
	}
	in[name] = v
	return nil
}

func (d *description) group(m []string, lines []string) (int, error) {
	g := group{union: m[3] == "["}
	if m[2] != "" {
		g.params = strings.Split(m[2], ", ")
	}
	for i, line := range lines {
		if groupEnd.MatchString(line) {
			return i + 1, define(d.groups, m[1], g)
		}
		f := memberLine.FindStringSubmatch(line)
		if f == nil {
			return 0, fmt.Errorf("%s: not a field: %q", m[1], line)
		}
		typ, err := d.expr(f[2])
		if err != nil {
			return 0, fmt.Errorf("%s.%s: %w", m[1], f[1], err)
		}
		g.members = append(g.members, member{f[1], typ})
	}
	return 0, fmt.Errorf("%s has no end", m[1])
}

func (d *description) call(m []string) error {
	c := syscall{name: m[1], result: m[4]}
	for _, part := range split(m[3]) {
		name, typ, ok := strings.Cut(part, " ")
		if !ok {
			return fmt.Errorf("%s: argument %q", m[2], part)
		}
		e, err := d.expr(typ)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", m[2], name, err)
		}
		c.args = append(c.args, member{name, e})
	}
	if c.result != "" {
		d.names[c.result] = true
	}
	return define(d.calls, m[1]+"$"+m[2], c)
}

// split divides at the commas that are in no bracket.
func split(s string) (parts []string) {
	depth, from := 0, 0
	for i, r := range s {
		switch r {
		case '[':
			depth++
		case ']':
			depth--
		case ',':
			if depth == 0 {
				parts = append(parts, strings.TrimSpace(s[from:i]))
				from = i + 1
			}
		}
	}
	return append(parts, strings.TrimSpace(s[from:]))
}

var plain = regexp.MustCompile(`^(\w+(\$\w+)?|"[^"]*"|-?\w+:\w+)$`)

func (d *description) expr(s string) (expr, error) {
	name, rest, bracket := strings.Cut(s, "[")
	if !plain.MatchString(name) {
		return expr{}, fmt.Errorf("not a type: %q", s)
	}
	for _, n := range strings.Split(name, ":") {
		d.names[n] = true
	}
	e := expr{name: name}
	if !bracket {
		return e, nil
	}
	inner, ok := strings.CutSuffix(rest, "]")
	if !ok {
		return e, fmt.Errorf("no end: %q", s)
	}
	for _, part := range split(inner) {
		arg, err := d.expr(part)
		if err != nil {
			return e, err
		}
		e.args = append(e.args, arg)
	}
	return e, nil
}

// params are the names that a template gives its arguments.
func (d *description) params() (names []string) {
	for _, g := range d.groups {
		names = append(names, g.params...)
	}
	for _, g := range d.aliases {
		names = append(names, g.params...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
