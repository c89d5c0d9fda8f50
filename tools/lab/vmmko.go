// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// vmmko builds the module under test. Its objects live in a folder of the
// cache, one for each checkout and kernel, in which every source is a link, so
// that kernels do not fight over one folder and the checkout stays clean.
type vmmko struct {
	source string // the folder with Kbuild
	dir    string // the link tree
}

// module is a built one.
type module struct {
	path string
	data []byte
}

// moduleSources are the parts of the checkout that the module is built from.
var moduleSources = []string{"Kbuild", "kmod", "abi"}

// buildWish is how to build it.
type buildWish struct {
	warnings bool // W=1 and sparse, always anew so that they are all seen
	cover    bool // with counters for gcov
}

// buildModule returns the built module.
func (l *lab) buildModule(ctx context.Context, tree *toolTree, k *kernel, source string, wish buildWish) (*module, error) {
	if k.dir == "" {
		return nil, fmt.Errorf("kernel %s is a file without headers to build a module with: give a folder, or --no-module", k.image)
	}
	if !exists(filepath.Join(source, "Kbuild")) {
		return nil, fmt.Errorf("%s has no Kbuild to build a module from: use --no-module", source)
	}
	key := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%t", source, k.dir, wish.cover))
	name := "module-" + k.release + "-" + hex.EncodeToString(key[:])[:12]
	lock, err := l.cache.lock(ctx, name, unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	b := vmmko{source: source, dir: filepath.Join(l.cache.dir, name)}
	files, sum, err := b.scan()
	if err != nil {
		return nil, err
	}
	stamp := filepath.Join(b.dir, "stamp")
	if old, err := os.ReadFile(stamp); err == nil && string(old) == sum && !wish.warnings {
		return b.take()
	}
	os.Remove(stamp)
	if err := b.link(files, wish.warnings); err != nil {
		return nil, fmt.Errorf("module: %w", err)
	}
	if err := l.compile(ctx, tree, k, b, wish); err != nil {
		return nil, err
	}
	if err := os.WriteFile(stamp, []byte(sum), 0o644); err != nil {
		return nil, err
	}
	return b.take()
}

// buildWords are make's; @ stands for the link tree, which is kept out of the
// module, so that a trace names the sources by their place in the checkout.
var buildWords = []string{"-s", "M=@", "CC=gcc", "HOSTCC=gcc", "KCFLAGS=-ffile-prefix-map=@/=", "modules"}

// compile runs the kernel's own build system inside the tree.
func (l *lab) compile(ctx context.Context, tree *toolTree, k *kernel, b vmmko, wish buildWish) (err error) {
	defer l.out.step("building vmm.ko for %s", k.release)(&err)
	argv := []string{"make", "-j" + strconv.Itoa(runtime.NumCPU()), "-C", k.headers()}
	for _, word := range buildWords {
		argv = append(argv, strings.ReplaceAll(word, "@", b.dir))
	}
	argv = append(argv, k.words...)
	if wish.cover {
		argv = append(argv, "GCOV_PROFILE=y")
	}
	if wish.warnings {
		argv = append(argv, "W=1")
		if k.hasSparse() {
			argv = append(argv, "C=1", "CHECK=sparse")
		} else {
			fmt.Fprintf(l.out.w, "lab: no sparse for %s: its headers package lacks scripts/checker-valid.sh\n", k.release)
		}
	}
	cmd, err := l.inTree(ctx, tree, []*kernel{k}, "/", argv)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	code, err := runInside(cmd, nil, &text, &text)
	// Compilers name the links; people want the files.
	said := strings.ReplaceAll(text.String(), b.dir+"/", b.source+"/")
	said = dropLines(said, harmless)
	if code != 0 || wish.warnings {
		fmt.Fprint(l.out.w, said)
	}
	if err == nil && code != 0 {
		err = fmt.Errorf("module does not build for %s", k.release)
	}
	if err == nil && wish.warnings && said != "" {
		err = fmt.Errorf("module builds with warnings for %s", k.release)
	}
	return err
}

// hasSparse reports whether the headers have what their own Makefile wants in
// order to call sparse. Debian leaves a script out of those of newer kernels.
func (k *kernel) hasSparse() bool {
	for _, dir := range []string{"usr/src/*-common", "usr/src/*"} {
		makefiles, err := filepath.Glob(filepath.Join(k.dir, dir, "Makefile"))
		if err != nil {
			return false
		}
		for _, m := range makefiles {
			text, err := os.ReadFile(m)
			if err != nil {
				return false
			}
			script := filepath.Join(filepath.Dir(m), "scripts/checker-valid.sh")
			if bytes.Contains(text, []byte("checker-valid.sh")) && !exists(script) {
				return false
			}
		}
	}
	return true
}

// harmless are lines about the way of building, not about the module: the
// tree's compiler is not the very one that built the kernel, and there is no
// vmlinux to take type information from.
var harmless = []string{
	"warning: the compiler differs from the one used to build the kernel",
	"The kernel was built by:",
	"You are using:",
	"Skipping BTF generation for",
	"warning: pahole version differs from the one used to build the kernel",
}

func dropLines(text string, with []string) string {
	var kept strings.Builder
	for line := range strings.Lines(text) {
		if !slices.ContainsFunc(with, func(s string) bool { return strings.Contains(line, s) }) {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// scan lists the sources, relative to the checkout, and hashes them.
func (b vmmko) scan() (files []string, sum string, err error) {
	h := sha256.New()
	fmt.Fprintln(h, buildWords, debugWords)
	for _, part := range moduleSources {
		err := filepath.WalkDir(filepath.Join(b.source, part), func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) || err == nil && d.IsDir() {
				return nil
			}
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(b.source, path)
			if err != nil || !isModuleSource(rel) {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(h, "%d:%s%d:%s", len(rel), rel, len(text), text)
			files = append(files, rel)
			return nil
		})
		if err != nil {
			return nil, "", fmt.Errorf("module: %w", err)
		}
	}
	return files, hex.EncodeToString(h.Sum(nil)), nil
}

func isModuleSource(rel string) bool {
	base := filepath.Base(rel)
	if base == "Kbuild" || base == "Makefile" {
		return true
	}
	switch filepath.Ext(base) {
	case ".c", ".h", ".S":
		return !strings.HasSuffix(base, ".mod.c")
	}
	return false
}

// link makes the link tree agree with the list of sources.
func (b vmmko) link(files []string, anew bool) error {
	if anew {
		if err := os.RemoveAll(b.dir); err != nil {
			return err
		}
	}
	if err := b.unlinkGone(files); err != nil {
		return err
	}
	for _, rel := range files {
		to := filepath.Join(b.dir, rel)
		if target, err := os.Readlink(to); err == nil && target == filepath.Join(b.source, rel) {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(filepath.Join(b.source, rel), to); err != nil {
			return err
		}
	}
	return nil
}

func (b vmmko) unlinkGone(files []string) error {
	return filepath.WalkDir(b.dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.Type()&fs.ModeSymlink == 0 {
			return err
		}
		rel, err := filepath.Rel(b.dir, path)
		if err != nil || slices.Contains(files, rel) {
			return err
		}
		return os.Remove(path)
	})
}

// take reads the module while its folder is locked: a lab beside this one may
// build the next one as soon as it is not.
func (b vmmko) take() (*module, error) {
	path := filepath.Join(b.dir, "vmm.ko")
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("module: its Kbuild made no vmm.ko: %w", err)
	}
	return &module{path: path, data: data}, nil
}
