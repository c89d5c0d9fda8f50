// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"vmctl/tools/lab/wire"
)

// do runs one command.
func (l *lab) do(ctx context.Context, o *options) (int, error) {
	switch o.command {
	case "exec", "shell":
		return l.boot(ctx, o)
	case "tree":
		return l.runTree(ctx, o.argv)
	case "clean":
		return l.clean()
	}
	tree, err := l.toolTree(ctx)
	if err != nil {
		return exitLab, err
	}
	switch o.command {
	case "prepare":
		err = l.prepareKernels(ctx, tree, o.kernel)
	case "build-module":
		err = l.printModule(ctx, tree, o)
	case "kernel-path":
		err = l.printKernel(ctx, tree, o.kernel)
	case "initrd":
		err = l.nestedInitrd(ctx, tree, o)
	case "disk":
		err = l.guestDisk(ctx, tree, o)
	case "checkpatch":
		return l.checkpatch(ctx, tree, o.argv)
	case "coccicheck":
		return l.coccicheck(ctx, tree, o.argv)
	}
	if err != nil {
		return exitLab, err
	}
	return 0, nil
}

// boot starts a machine and runs the command or a shell in it.
func (l *lab) boot(ctx context.Context, o *options) (int, error) {
	if err := wantStatic(); err != nil {
		return exitLab, err
	}
	if l.checkout == "" {
		return exitLab, errors.New("run this in a checkout: there is no go.mod of vmctl here or above")
	}
	if strings.ContainsAny(l.checkout, ", \t\n\\:") {
		return exitLab, fmt.Errorf("checkout %q: its path must have no blanks, commas, colons or backslashes", l.checkout)
	}
	if err := os.MkdirAll(filepath.Join(l.checkout, "build"), 0o755); err != nil {
		return exitLab, err
	}
	tree, err := l.toolTree(ctx)
	if err != nil {
		return exitLab, err
	}
	k, err := l.kernel(ctx, tree, o.kernel)
	if err != nil {
		return exitLab, err
	}
	st, err := l.starter(ctx, tree, k)
	if err != nil {
		return exitLab, err
	}
	var mod *module
	if !o.noModule {
		if mod, err = l.buildModule(ctx, tree, k, l.moduleSource(o), buildWish{cover: o.cover != ""}); err != nil {
			return exitLab, err
		}
	}
	m := &machine{kernel: k, starter: st, tree: tree, checkout: l.checkout,
		cpus: o.cpus, memory: o.memory, icount: o.icount, forwards: o.forwards}
	s := &session{lab: l, stdout: os.Stdout, stderr: os.Stderr, timeout: o.timeout, dmesg: o.dmesg}
	s.command = wire.Command{Argv: o.argv, Env: machineEnv(o.env), Dir: l.checkout, Module: mod != nil}
	if o.command == "shell" {
		return l.shell(ctx, s, m, mod)
	}
	if ourInput() {
		s.stdin = os.Stdin
	}
	if o.cover != "" {
		return l.covered(ctx, tree, s, m, mod, o.cover)
	}
	return s.run(ctx, m, mod)
}

// moduleSource is the folder whose Kbuild makes vmm.ko.
func (l *lab) moduleSource(o *options) string {
	if o.module == "" {
		return l.checkout
	}
	if dir, err := filepath.Abs(o.module); err == nil {
		return dir
	}
	return o.module
}

// shell runs a shell, or the given command, on a terminal.
func (l *lab) shell(ctx context.Context, s *session, m *machine, mod *module) (int, error) {
	if len(s.command.Argv) == 0 {
		s.command.Argv = []string{"bash", "-l"}
	}
	s.timeout, s.stdin = 0, os.Stdin
	t, err := openTerminal()
	if err != nil {
		return exitLab, err
	}
	if t == nil {
		return s.run(ctx, m, mod)
	}
	defer t.close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.command.TTY, s.command.Size, s.resize = true, t.size(), t.sizes
	s.stdin = escaping{os.Stdin, func() { cancel(stopError{exitLab}) }}
	return s.run(ctx, m, mod)
}

// machineEnv is the environment of the command in the machine.
func machineEnv(more []string) []string {
	return append(insideEnv(), more...)
}

// runTree runs a command in the tree on the host, with all kernels' headers
// that are there.
func (l *lab) runTree(ctx context.Context, argv []string) (int, error) {
	tree, err := l.toolTree(ctx)
	if err != nil {
		return exitLab, err
	}
	var kernels []*kernel
	for _, name := range kernelNames {
		k, err := l.kernel(ctx, tree, name)
		if err != nil {
			return exitLab, err
		}
		kernels = append(kernels, k)
	}
	return l.inTreeHere(ctx, tree, kernels, argv)
}

// inTreeHere runs argv in the tree with our streams and working folder.
func (l *lab) inTreeHere(ctx context.Context, tree *toolTree, kernels []*kernel, argv []string) (int, error) {
	dir, err := os.Getwd()
	if err != nil {
		return exitLab, err
	}
	if l.checkout == "" {
		dir = "/"
	}
	cmd, err := l.inTree(ctx, tree, kernels, dir, argv)
	if err != nil {
		return exitLab, err
	}
	return runInside(cmd, os.Stdin, os.Stdout, os.Stderr)
}

func (l *lab) prepareKernels(ctx context.Context, tree *toolTree, name string) error {
	names := []string{name}
	if name == "all" {
		names = kernelNames
	}
	for _, name := range names {
		k, err := l.kernel(ctx, tree, name)
		if err != nil {
			return err
		}
		if _, err := l.starter(ctx, tree, k); err != nil {
			return err
		}
		l.out.say("kernel %s is ready: %s", name, k.release)
	}
	return nil
}

func (l *lab) printModule(ctx context.Context, tree *toolTree, o *options) error {
	names := []string{o.kernel}
	if o.kernel == "all" {
		names = kernelNames
	}
	var all error
	for _, name := range names {
		k, err := l.kernel(ctx, tree, name)
		if err != nil {
			return err
		}
		mod, err := l.buildModule(ctx, tree, k, l.moduleSource(o), buildWish{warnings: o.warnings})
		if err != nil {
			all = errors.Join(all, err)
			continue
		}
		fmt.Println(mod.path)
	}
	return all
}

func (l *lab) printKernel(ctx context.Context, tree *toolTree, name string) error {
	k, err := l.kernel(ctx, tree, name)
	if err == nil {
		fmt.Println(k.image)
	}
	return err
}

// clean removes every prepared tree but those in use.
func (l *lab) clean() (int, error) {
	locks, err := filepath.Glob(filepath.Join(l.cache.dir, "*.lock"))
	if err != nil {
		return exitLab, err
	}
	var all error
	for _, lock := range locks {
		all = errors.Join(all, l.cache.remove(strings.TrimSuffix(filepath.Base(lock), ".lock")))
	}
	if all != nil {
		return exitLab, all
	}
	return 0, nil
}
