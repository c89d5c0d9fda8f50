// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// kernel is one that the machine can boot: a folder laid out like a root, with
// boot/vmlinuz-*, its modules and its headers, as its packages unpack. A kernel
// given as a file has no such folder, and so all that it needs built in.
type kernel struct {
	dir     string   // empty for a kernel given as a file
	image   string   // as distributed
	release string   // as uname -r says; empty for a kernel given as a file
	words   []string // of make, for modules
}

// kernelSuites says where each kernel by name comes from. The last suite is
// asked, those before it serve its dependencies.
var kernelSuites = map[string][]string{
	"6.1":  {"bookworm"},
	"6.12": {"trixie"},
	"new":  {"trixie", "trixie-backports"},
}

// kernelNames are those that "all" stands for.
var kernelNames = []string{"6.1", "6.12", "new"}

const (
	debugKernel   = "debug"
	defaultKernel = "6.12"
	kernelSpace   = 1 << 30
)

// kernel returns a kernel by name or path.
func (l *lab) kernel(ctx context.Context, tree *toolTree, name string) (*kernel, error) {
	if name == debugKernel {
		return l.debugKernel(ctx, tree)
	}
	suites, ok := kernelSuites[name]
	if !ok {
		return kernelAt(name)
	}
	r := recipe{
		noun:  "kernel-" + name,
		lines: append([]string{"linux-image-amd64 linux-headers-amd64"}, suites...),
		space: kernelSpace,
	}
	dir, err := l.cache.prepare(ctx, r, func(dir string) error { return l.fetchKernel(ctx, tree, dir, name, suites) })
	if err != nil {
		return nil, err
	}
	return kernelAt(dir)
}

func (l *lab) fetchKernel(ctx context.Context, tree *toolTree, dir, name string, suites []string) (err error) {
	if err := l.wantHostTools(ctx); err != nil {
		return err
	}
	mirror, err := debianMirror(aptFolder)
	if err != nil {
		return err
	}
	defer l.out.step("fetching kernel %s", name)(&err)
	temp, err := os.MkdirTemp(dir, "apt-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	a, err := openArchive(ctx, temp, mirror, suites...)
	if err != nil {
		return err
	}
	list, err := a.resolve(ctx, suites[len(suites)-1], "linux-", "linux-image-amd64", "linux-headers-amd64")
	if err != nil {
		return err
	}
	if err := a.unpack(ctx, dir, list); err != nil {
		return err
	}
	return finishKernel(ctx, tree, dir)
}

// finishKernel does what installing the packages would have done: the image
// goes where boot loaders look, and the modules get their index.
func finishKernel(ctx context.Context, tree *toolTree, dir string) error {
	if err := placeImage(dir); err != nil {
		return err
	}
	k, err := kernelAt(dir)
	if err != nil {
		return err
	}
	// depmod -b looks beneath lib.
	if err := os.Symlink("usr/lib", filepath.Join(dir, "lib")); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	_, err = tree.run(ctx, "usr/bin/kmod", "depmod", "-b", dir, k.release)
	return err
}

// placeImage moves the files that newer packages keep beside the modules, and
// copy from there when they are installed, to boot.
func placeImage(dir string) error {
	images, err := filepath.Glob(filepath.Join(dir, "usr/lib/modules/*/vmlinuz"))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(dir, "boot"), 0o755); err != nil {
		return err
	}
	for _, image := range images {
		from := filepath.Dir(image)
		for _, name := range []string{"vmlinuz", "config"} {
			to := filepath.Join(dir, "boot", name+"-"+filepath.Base(from))
			if err := os.Rename(filepath.Join(from, name), to); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// kernelAt reads a kernel's folder, or takes a file as an image.
func kernelAt(path string) (*kernel, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("kernel %q: not one of %s, %s, and no such file or folder",
			path, strings.Join(kernelNames, ", "), debugKernel)
	}
	if !info.IsDir() {
		return &kernel{image: path}, nil
	}
	images, err := filepath.Glob(filepath.Join(path, "boot/vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return nil, fmt.Errorf("kernel %q: %d files boot/vmlinuz-*, not one", path, len(images))
	}
	release := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	return &kernel{dir: path, image: images[0], release: release}, nil
}

// headers is where the kernel's build system is, seen from inside the tree.
func (k *kernel) headers() string { return filepath.Join("/usr/lib/modules", k.release, "build") }
