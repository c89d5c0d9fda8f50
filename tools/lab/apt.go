// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// archive is a private apt: its own sources, lists and an empty dpkg status,
// so that it can ask any release what it would install without touching what
// the machine has. The machine's apt.conf (proxies, retries) applies.
type archive struct {
	dir     string
	options []string
}

// pkg is one package at one version.
type pkg struct{ name, version string }

// openArchive reads the suites' package lists into dir.
func openArchive(ctx context.Context, dir, mirror string, suites ...string) (*archive, error) {
	a := &archive{dir: dir}
	for _, sub := range []string{"state/lists/partial", "cache/archives/partial", "parts"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	var text strings.Builder
	for _, s := range suites {
		fmt.Fprintf(&text, "deb [signed-by=%s] %s %s main\n", keyring, mirror, s)
	}
	if err := os.WriteFile(filepath.Join(dir, "sources.list"), []byte(text.String()), 0o644); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "status"), nil, 0o644); err != nil {
		return nil, err
	}
	for name, value := range map[string]string{
		"Dir::Etc::sourcelist":       filepath.Join(dir, "sources.list"),
		"Dir::Etc::sourceparts":      filepath.Join(dir, "parts"),
		"Dir::Etc::preferences":      filepath.Join(dir, "none"),
		"Dir::Etc::preferencesparts": filepath.Join(dir, "parts"),
		"Dir::State":                 filepath.Join(dir, "state"),
		"Dir::State::status":         filepath.Join(dir, "status"),
		"Dir::State::Lists":          filepath.Join(dir, "state/lists"),
		"Dir::Cache":                 filepath.Join(dir, "cache"),
		"APT::Architecture":          "amd64",
		"APT::Architectures":         "amd64",
		"APT::Sandbox::User":         "",
		"APT::Default-Release":       "",
		"Acquire::Languages":         "none",
	} {
		a.options = append(a.options, "-o", name+"="+value)
	}
	if _, err := a.get(ctx, dir, "update", "-o", "APT::Update::Error-Mode=any"); err != nil {
		return nil, fmt.Errorf("read package lists of %s: %w", strings.Join(suites, ", "), err)
	}
	return a, nil
}

func (a *archive) get(ctx context.Context, dir string, args ...string) ([]byte, error) {
	return tool(ctx, dir, "apt-get", append(append([]string{"-qq"}, a.options...), args...)...)
}

// resolve says which packages whose names begin with prefix an installation of
// names from that suite would bring.
func (a *archive) resolve(ctx context.Context, suite, prefix string, names ...string) ([]pkg, error) {
	args := append([]string{"--simulate", "--no-install-recommends", "-t", suite, "install"}, names...)
	out, err := a.get(ctx, a.dir, args...)
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", strings.Join(names, " "), err)
	}
	list := parseSimulation(out, prefix)
	if len(list) == 0 {
		return nil, errors.New("resolve " + strings.Join(names, " ") + ": no package found")
	}
	return list, nil
}

// parseSimulation reads lines such as "Inst linux-base (4.12 Debian:13 [all])".
func parseSimulation(out []byte, prefix string) []pkg {
	var list []pkg
	s := bufio.NewScanner(bytes.NewReader(out))
	for s.Scan() {
		f := strings.Fields(s.Text())
		if len(f) >= 3 && f[0] == "Inst" && strings.HasPrefix(f[1], prefix) && strings.HasPrefix(f[2], "(") {
			list = append(list, pkg{f[1], f[2][1:]})
		}
	}
	return list
}

// unpack downloads the packages and unpacks them beneath root, without running
// any of their scripts. The library and program folders end beneath usr.
func (a *archive) unpack(ctx context.Context, root string, list []pkg) error {
	debs := filepath.Join(a.dir, "debs")
	if err := os.MkdirAll(debs, 0o755); err != nil {
		return err
	}
	args := []string{"download"}
	for _, p := range list {
		args = append(args, p.name+"="+p.version)
	}
	if _, err := a.get(ctx, debs, args...); err != nil {
		return fmt.Errorf("download packages: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil {
		return err
	}
	for _, f := range files {
		if _, err := tool(ctx, a.dir, "dpkg-deb", "--extract", f, root); err != nil {
			return fmt.Errorf("unpack %s: %w", filepath.Base(f), err)
		}
	}
	return mergeUsr(root)
}

// mergeUsr moves what older packages ship in /lib to where every Debian since
// 12 has it, so that the folder can be laid over a tree whose /lib is a link.
func mergeUsr(root string) error {
	old := filepath.Join(root, "lib")
	info, err := os.Lstat(old)
	if errors.Is(err, os.ErrNotExist) || err == nil && info.Mode()&os.ModeSymlink != 0 {
		return nil
	}
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(old)
	if err != nil {
		return err
	}
	for _, e := range entries {
		from, to := filepath.Join(old, e.Name()), filepath.Join(root, "usr/lib", e.Name())
		if err := mergeEntry(from, to); err != nil {
			return err
		}
	}
	return os.RemoveAll(old)
}

func mergeEntry(from, to string) error {
	if !exists(to) {
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		return os.Rename(from, to)
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := mergeEntry(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
