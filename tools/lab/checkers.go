// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// checkerFiles are what two checkers of the kernel's source read: checkpatch its
// lists of words, coccicheck its rules, the Makefiles that start it and the two
// headers that it puts before every file.
var checkerFiles = []string{
	"scripts", "Makefile", "arch/x86/Makefile", "arch/x86/Makefile_32.cpu",
	"include/linux/kconfig.h", "include/linux/compiler-version.h",
}

const checkerSpace = 1 << 30

// checkers returns the folder with the files of the default kernel's source.
func (l *lab) checkers(ctx context.Context, tree *toolTree) (string, error) {
	r := recipe{noun: "checkers", lines: append([]string{treeSuite, defaultKernel}, checkerFiles...), space: checkerSpace}
	return l.cache.prepare(ctx, r, func(dir string) (err error) {
		defer l.out.step("fetching the checkers of kernel %s", defaultKernel)(&err)
		if err := l.unpackSource(ctx, tree, treeSuite, defaultKernel, dir, checkerFiles...); err != nil {
			return err
		}
		return dropOCaml(filepath.Join(dir, "scripts/coccinelle"))
	})
}

// dropOCaml removes the few rules with OCaml in them: they need its compiler.
func dropOCaml(rules string) error {
	return filepath.WalkDir(rules, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err == nil && bytes.Contains(text, []byte("script:ocaml")) {
			err = os.Remove(path)
		}
		return err
	})
}

// checkpatch runs the style checker in the tree.
func (l *lab) checkpatch(ctx context.Context, tree *toolTree, argv []string) (int, error) {
	dir, err := l.checkers(ctx, tree)
	if err != nil {
		return exitLab, err
	}
	words := []string{"perl", filepath.Join(dir, "scripts/checkpatch.pl"), "--no-tree"}
	return l.inTreeHere(ctx, tree, nil, append(words, argv...))
}

// coccicheck matches a folder's sources against the kernel's rules. It says what
// it found, and fails if that is anything; make itself does not.
func (l *lab) coccicheck(ctx context.Context, tree *toolTree, argv []string) (int, error) {
	if len(argv) != 1 || l.checkout == "" {
		return exitLab, errors.New("lab coccicheck: wants one folder of this checkout")
	}
	dir, err := l.checkers(ctx, tree)
	if err != nil {
		return exitLab, err
	}
	module, err := filepath.Abs(argv[0])
	if err != nil {
		return exitLab, err
	}
	cmd, err := l.inTree(ctx, tree, nil, dir, []string{
		"make", "-s", "coccicheck", "MODE=report", "J=" + strconv.Itoa(runtime.NumCPU()), "M=" + module,
	})
	if err != nil {
		return exitLab, err
	}
	var said strings.Builder
	code, err := runInside(cmd, nil, &said, &said)
	if err != nil {
		return exitLab, err
	}
	found := cocciFindings(said.String(), module)
	io.WriteString(os.Stdout, found)
	switch {
	case code != 0:
		return code, errors.New("coccicheck: " + whyLine(said.String()))
	case found != "":
		return 1, nil
	}
	return 0, nil
}

// cocciFindings picks the lines about the module out of what it says of itself.
func cocciFindings(said, module string) string {
	var found strings.Builder
	for line := range strings.Lines(said) {
		if strings.HasPrefix(line, module+"/") || strings.HasPrefix(line, "EXN:") {
			found.WriteString(line)
		}
	}
	return found.String()
}
