// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// edges grants packages matching from the use of our packages matching to, and
// of no others. A pattern is a folder, or a folder and /... for all at and
// below it.
type edges struct {
	from string
	to   []string
	why  string
}

// guard lists the only packages that may use something that does not come
// from us: an import path, or a path and a name as in "net/http.Server".
type guard struct {
	what  []string
	only  []string
	tests bool // files ending in _test.go may use it anywhere
	why   string
}

// ban keeps imports out of packages that everything else may use them in.
type ban struct {
	what []string
	in   string
	why  string
}

type importTable struct {
	edges     []edges
	testEdges []edges // more, for files ending in _test.go
	guards    []guard
	bans      []ban
}

// finding is one use without a row.
type finding struct {
	file string
	line int
	text string
}

func (f finding) String() string { return fmt.Sprintf("%s:%d: %s", f.file, f.line, f.text) }

// check returns what the table does not grant, ordered by file and line.
func (t importTable) check(files []file) []finding {
	var found []finding
	for _, f := range files {
		for _, u := range f.imports {
			if u.ours {
				found = append(found, t.checkEdge(f, u)...)
			} else {
				found = append(found, t.checkUse(f, u)...)
			}
		}
		for _, u := range f.names {
			found = append(found, t.checkUse(f, u)...)
		}
	}
	slices.SortStableFunc(found, func(a, b finding) int {
		return cmp.Or(cmp.Compare(a.file, b.file), cmp.Compare(a.line, b.line))
	})
	return found
}

func (t importTable) checkEdge(f file, u use) []finding {
	if u.what == f.pkg { // an external test of the package itself
		return nil
	}
	row := rowOf(t.edges, f.pkg)
	if row.grant(u.what, f.test) || f.test && rowOf(t.testEdges, f.pkg).grant(u.what, true) {
		return nil
	}
	return []finding{{f.name, u.line, fmt.Sprintf("%s must not import %s (%s)", f.pkg, u.what, row.grants())}}
}

// rowOf returns the row whose pattern names a package most exactly, an empty
// one if none does.
func rowOf(rows []edges, pkg string) edges {
	var best edges
	for _, r := range rows {
		if r.from == pkg {
			return r
		}
		if matches(r.from, pkg) && len(r.from) > len(best.from) {
			best = r
		}
	}
	return best
}

// grant reports whether the row covers an edge. Packages that are made for
// tests, such as kerntest, must be named for code that is no test: "all below"
// does not mean them.
func (r edges) grant(to string, test bool) bool {
	return slices.ContainsFunc(r.to, func(p string) bool {
		return p == to || matches(p, to) && (test || !strings.HasSuffix(to, "test"))
	})
}

// grants says what a package may import, for the one who reads the finding.
func (r edges) grants() string {
	if len(r.to) == 0 {
		return "it may import none of our packages"
	}
	return "of ours it may import " + strings.Join(r.to, ", ")
}

func (t importTable) checkUse(f file, u use) []finding {
	var found []finding
	for _, g := range t.guards {
		if slices.Contains(g.what, u.what) && !matchesAny(g.only, f.pkg) && (!g.tests || !f.test) {
			found = append(found, finding{f.name, u.line, fmt.Sprintf("%s must not use %s: %s", f.pkg, u.what, g.why)})
		}
	}
	for _, b := range t.bans {
		if !f.test && slices.Contains(b.what, u.what) && matches(b.in, f.pkg) {
			found = append(found, finding{f.name, u.line, fmt.Sprintf("%s must not use %s: %s", f.pkg, u.what, b.why)})
		}
	}
	return found
}

func matchesAny(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, pkg) })
}

func matches(pattern, pkg string) bool {
	dir, below := strings.CutSuffix(pattern, "/...")
	return pkg == dir || below && strings.HasPrefix(pkg, dir+"/")
}
