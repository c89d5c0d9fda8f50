// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The lab takes packages from where the machine itself takes them: the mirror
// is read from its apt sources, in either of their two formats, and never
// written down here.

// source is one archive that apt knows.
type source struct {
	uri    string
	suites []string
	parts  []string // components
}

var errNoMirror = errors.New("no Debian mirror in /etc/apt: add a deb line for this release with component main")

// debianMirror returns the URI of the first enabled archive with a Debian release.
func debianMirror(root string) (string, error) {
	names, _ := filepath.Glob(filepath.Join(root, "sources.list.d", "*"))
	slices.Sort(names)
	for _, name := range append([]string{filepath.Join(root, "sources.list")}, names...) {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // not there, or a folder; apt does not mind either
		}
		var list []source
		switch filepath.Ext(name) {
		case ".list":
			list = parseLines(string(b))
		case ".sources":
			list = parseStanzas(string(b))
		}
		for _, s := range list {
			if s.isDebian() {
				return s.uri, nil
			}
		}
	}
	return "", errNoMirror
}

// debianSuites are the names under which a mirror holds a whole release.
var debianSuites = []string{
	"bookworm", "trixie", "forky", "duke", "sid",
	"oldstable", "stable", "testing", "unstable",
}

func (s source) isDebian() bool {
	return slices.Contains(s.parts, "main") && !strings.HasPrefix(s.uri, "cdrom:") && slices.ContainsFunc(s.suites, func(name string) bool {
		return slices.Contains(debianSuites, strings.TrimSuffix(name, "/"))
	})
}

// parseLines reads one-line sources: deb [options] URI suite component...
func parseLines(text string) []source {
	var list []source
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		if before, rest, ok := strings.Cut(line, "["); ok {
			_, after, _ := strings.Cut(rest, "]")
			line = before + after
		}
		f := strings.Fields(line)
		if len(f) >= 4 && f[0] == "deb" {
			list = append(list, source{uri: f[1], suites: f[2:3], parts: f[3:]})
		}
	}
	return list
}

// parseStanzas reads deb822 sources; URIs may hold several, the first serves.
func parseStanzas(text string) []source {
	var list []source
	fields := make(map[string]string)
	key := ""
	end := func() {
		uris := strings.Fields(fields["uris"])
		enabled := !slices.Contains([]string{"no", "false", "0"}, strings.ToLower(strings.TrimSpace(fields["enabled"])))
		if enabled && len(uris) > 0 && slices.Contains(strings.Fields(fields["types"]), "deb") {
			list = append(list, source{
				uri:    uris[0],
				suites: strings.Fields(fields["suites"]),
				parts:  strings.Fields(fields["components"]),
			})
		}
		clear(fields)
		key = ""
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \t\r\n")
		switch {
		case line == "":
			end()
		case line[0] == '#':
		case line[0] == ' ' || line[0] == '\t':
			fields[key] += " " + strings.TrimSpace(line)
		default:
			name, value, _ := strings.Cut(line, ":")
			key = strings.ToLower(strings.TrimSpace(name))
			fields[key] = strings.TrimSpace(value)
		}
	}
	end()
	return list
}

// keyring is what Debian's archives are signed with.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
