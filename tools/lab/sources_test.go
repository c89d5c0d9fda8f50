// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestDebianMirror(t *testing.T) {
	tests := []struct {
		name  string
		files map[string]string
		want  string // empty: errNoMirror
	}{
		{"one line", map[string]string{
			"sources.list": "# comment\ndeb http://mirror.example/debian bookworm main contrib # more\ndeb http://security.example bookworm-security main\n",
		}, "http://mirror.example/debian"},
		{"one line with options", map[string]string{
			"sources.list.d/a.list": "deb [arch=amd64 signed-by=/k.gpg] https://mirror.example/debian/ trixie main\n",
		}, "https://mirror.example/debian/"},
		{"deb822", map[string]string{
			"sources.list.d/debian.sources": "Types: deb deb-src\n# comment\nURIs: http://mirror.example/debian\nSuites: trixie trixie-updates\nComponents: main\nSigned-By: /k.gpg\n\nTypes: deb\nURIs: http://security.example\nSuites: trixie-security\nComponents: main\n",
		}, "http://mirror.example/debian"},
		{"deb822 over several lines", map[string]string{
			"sources.list.d/debian.sources": "Types: deb\nURIs:\n http://mirror.example/debian\n http://other.example/debian\nSuites: bookworm\n bookworm-updates\nComponents: main\n",
		}, "http://mirror.example/debian"},
		{"disabled comes not first", map[string]string{
			"sources.list.d/a.sources": "Enabled: no\nTypes: deb\nURIs: http://off.example\nSuites: trixie\nComponents: main\n\nTypes: deb\nURIs: http://on.example\nSuites: trixie\nComponents: main\n",
		}, "http://on.example"},
		{"security alone is no mirror", map[string]string{
			"sources.list": "deb http://security.example bookworm-security main\n",
		}, ""},
		{"foreign archives", map[string]string{
			"sources.list.d/node.sources":  "Types: deb\nURIs: http://node.example\nSuites: nodistro\nComponents: main\n",
			"sources.list.d/cloud.list":    "deb http://cloud.example apt main\n",
			"sources.list.d/backup.list.x": "deb http://ignored.example bookworm main\n",
			"sources.list":                 "deb-src http://source.example bookworm main\ndeb http://short.example bookworm\n",
		}, ""},
		{"the installer's disc", map[string]string{
			"sources.list": "deb cdrom:[Debian]/ bookworm main\ndeb http://mirror.example/debian bookworm main\n",
		}, "http://mirror.example/debian"},
		{"nothing", nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			for name, text := range tt.files {
				file := filepath.Join(root, name)
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got, err := debianMirror(root)
			if got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
			if tt.want == "" && !errors.Is(err, errNoMirror) {
				t.Errorf("error %v, want errNoMirror", err)
			}
		})
	}
}

func TestParseSimulation(t *testing.T) {
	out := "NOTE: This is only a simulation!\n" +
		"Inst gcc-14 (14.2.0-19 Debian:13.1/stable [amd64])\n" +
		"Inst linux-image-6.12.48+deb13-amd64 (6.12.48-1 Debian:13.1/stable [amd64])\n" +
		"Inst linux-base [4.11] (4.12 Debian:13.1/stable [all])\n" +
		"Conf linux-image-6.12.48+deb13-amd64 (6.12.48-1 Debian:13.1/stable [amd64])\n"
	list := parseSimulation([]byte(out), "linux-")
	if len(list) != 1 || list[0] != (pkg{"linux-image-6.12.48+deb13-amd64", "6.12.48-1"}) {
		t.Errorf("%v", list)
	}
}
