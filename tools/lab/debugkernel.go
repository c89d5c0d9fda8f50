// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// The debug kernel is Debian 12's source with the sanitizers and lockdep on. It
// finds what the stock kernels forgive, and takes a quarter of an hour to build
// on two cores, once.

const (
	debugVersion = "6.1"
	debugSuite   = "bookworm"
	debugSpace   = 8 << 30
	debugSource  = "usr/src/linux-headers-debug"
)

// debugWords turn on for a module what the kernel itself goes without.
var debugWords = []string{"UBSAN_SANITIZE=y", "KCOV_INSTRUMENT=y"}

// debugConfig is laid over x86_64_defconfig.
//
//go:embed debug.config
var debugConfig string

// debugBuild runs in the unpacked source. The machine enters the kernel as a PVH
// guest, in code that runs before the sanitizers' memory is there: it may not be
// instrumented, nor ask for Xen, which compares strings by code that is.
const debugBuild = `set -e
sed -i 's/u32 msr = xen_cpuid_base();/u32 msr = 0;/' arch/x86/platform/pvh/enlighten.c
for v in KASAN_SANITIZE KCSAN_SANITIZE UBSAN_SANITIZE KCOV_INSTRUMENT GCOV_PROFILE; do
	echo "$v := n" >> arch/x86/platform/pvh/Makefile
done
make -s x86_64_defconfig
scripts/kconfig/merge_config.sh -m .config debug.config >/dev/null
make -s olddefconfig
nice make -j@ bzImage modules
make -s INSTALL_MOD_PATH=$PWD/installed INSTALL_MOD_STRIP=1 modules_install
cp arch/x86/boot/bzImage installed/vmlinuz
make -s kernelrelease > installed/release`

// debugKernel returns that kernel, built if need be.
func (l *lab) debugKernel(ctx context.Context, tree *toolTree) (*kernel, error) {
	r := recipe{noun: "kernel-debug", lines: []string{debugSuite, debugVersion, debugConfig, debugBuild, treeSuite}, space: debugSpace}
	dir, err := l.cache.prepare(ctx, r, func(dir string) error { return l.buildDebugKernel(ctx, tree, dir) })
	if err != nil {
		return nil, err
	}
	k, err := kernelAt(dir)
	if err != nil {
		return nil, err
	}
	k.words = debugWords
	return k, nil
}

func (l *lab) buildDebugKernel(ctx context.Context, tree *toolTree, dir string) (err error) {
	source := filepath.Join(dir, debugSource)
	if err := os.MkdirAll(source, 0o755); err != nil {
		return err
	}
	fetched := l.out.step("fetching the source of kernel %s", debugVersion)
	err = l.unpackSource(ctx, tree, debugSuite, debugVersion, source)
	fetched(&err)
	if err != nil {
		return err
	}
	defer l.out.step("building the debug kernel, about a quarter of an hour on two cores")(&err)
	if err := os.WriteFile(filepath.Join(source, "debug.config"), []byte(debugConfig), 0o644); err != nil {
		return err
	}
	script := strings.ReplaceAll(debugBuild, "@", strconv.Itoa(runtime.NumCPU()))
	cmd, err := l.inTree(ctx, tree, nil, source, []string{"sh", "-c", script})
	if err != nil {
		return err
	}
	var said bytes.Buffer
	code, err := runInside(cmd, nil, &compileLines{lab: l}, &said)
	if err == nil && code != 0 {
		err = fmt.Errorf("debug kernel does not build: %s", whyLine(said.String()))
	}
	if err != nil {
		return err
	}
	return installDebugKernel(ctx, tree, dir, source)
}

// compileLines counts make's lines, so that a long build shows that it goes on.
type compileLines struct {
	lab   *lab
	lines int
}

// showEvery is after how many files a line is shown.
const showEvery = 250

func (c *compileLines) Write(p []byte) (int, error) {
	before := c.lines / showEvery
	c.lines += bytes.Count(p, []byte("\n"))
	if c.lines/showEvery != before && !c.lab.out.quiet {
		c.lab.out.say("  %d steps", c.lines)
	}
	return len(p), nil
}

// installDebugKernel lays the result out as packages would, and drops from the
// source what building modules against it does not need.
func installDebugKernel(ctx context.Context, tree *toolTree, dir, source string) error {
	installed := filepath.Join(source, "installed")
	b, err := os.ReadFile(filepath.Join(installed, "release"))
	if err != nil {
		return err
	}
	release := strings.TrimSpace(string(b))
	modules := filepath.Join(dir, "usr/lib/modules", release)
	if err := os.MkdirAll(filepath.Dir(modules), 0o755); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(installed, "lib/modules", release), modules); err != nil {
		return err
	}
	for _, link := range []string{"build", "source"} {
		os.Remove(filepath.Join(modules, link)) // names a place that is gone after this
	}
	if err := os.Symlink("/"+debugSource, filepath.Join(modules, "build")); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(installed, "vmlinuz"), filepath.Join(modules, "vmlinuz")); err != nil {
		return err
	}
	if err := os.RemoveAll(installed); err != nil {
		return err
	}
	if err := dropObjects(source); err != nil {
		return err
	}
	return finishKernel(ctx, tree, dir)
}

// dropObjects removes what the compiler made, except in the folders of the
// programs that building a module runs.
func dropObjects(source string) error {
	return filepath.WalkDir(source, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		rel, err := filepath.Rel(source, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if rel == "scripts" || rel == "tools" || rel == "Documentation" {
				return fs.SkipDir
			}
			return nil
		}
		base := filepath.Base(rel)
		ext := filepath.Ext(base)
		if ext == ".o" || ext == ".a" || ext == ".cmd" || ext == ".ko" || strings.HasPrefix(base, "vmlinux") && ext != ".h" && ext != ".S" && ext != ".lds" {
			return os.Remove(path)
		}
		return nil
	})
}
