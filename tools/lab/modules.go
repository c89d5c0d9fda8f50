// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"vmctl/tools/lab/cpio"
	"vmctl/tools/lab/wire"
)

// What the machine loads by itself, as far as the kernel has it as modules: the
// way to its root first, then, while the root is being mounted, the rest. What
// else there is comes on demand: the machine has the nodes that ask for it.
var (
	rootModules  = []string{"virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay"}
	otherModules = []string{"virtio_net", "kvm_amd", "kvm_intel"}
)

// packModules returns the archive of the modules that the machine starts with,
// unpacked from their compression, which a host does faster than an emulated
// machine, and named in the order in which they must be loaded.
func (k *kernel) packModules(ctx context.Context, tree *toolTree) ([]byte, error) {
	return k.pack(ctx, tree, slices.Concat(rootModules, otherModules), func(index string, i int) string {
		if i < len(loadOrder(index, rootModules)) {
			return wire.RootModules
		}
		return wire.OtherModules
	})
}

// packNested returns that of the modules that a guest in the machine starts with.
func (k *kernel) packNested(ctx context.Context, tree *toolTree) ([]byte, error) {
	return k.pack(ctx, tree, nestedModules, func(string, int) string { return "/modules" })
}

// pack packs modules and what they need; folder says where to, by the place in the
// order.
func (k *kernel) pack(ctx context.Context, tree *toolTree, names []string, folder func(index string, i int) string) ([]byte, error) {
	base := filepath.Join(k.dir, "usr/lib/modules", k.release)
	index, err := os.ReadFile(filepath.Join(base, "modules.dep"))
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := cpio.NewWriter(&b)
	for i, file := range loadOrder(string(index), names) {
		data, err := readModule(ctx, tree, filepath.Join(base, file))
		if err != nil {
			return nil, err
		}
		dir := folder(string(index), i)
		name := fmt.Sprintf("%s/%02d-%s.ko", dir, i, moduleName(file))
		if err := w.File(strings.TrimPrefix(name, "/"), 0o644, data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func readModule(ctx context.Context, tree *toolTree, file string) ([]byte, error) {
	switch filepath.Ext(file) {
	case ".xz":
		return tree.run(ctx, "usr/bin/xz", "xz", "-dc", file)
	case ".zst":
		return tree.run(ctx, "usr/bin/zstd", "zstd", "-qdc", file)
	}
	return os.ReadFile(file)
}

// loadOrder returns the files of the wanted modules and of what they need, each
// after its needs. index is modules.dep; what is not in it is built in.
func loadOrder(index string, want []string) []string {
	files := make(map[string]string)
	needs := make(map[string][]string)
	for line := range strings.Lines(index) {
		file, rest, ok := strings.Cut(line, ":")
		if ok {
			files[moduleName(file)] = file
			needs[file] = strings.Fields(rest)
		}
	}
	var order []string
	for _, name := range want {
		file, ok := files[name]
		if !ok {
			continue
		}
		// depmod lists all needs, the deepest last.
		for _, f := range slices.Backward(append([]string{file}, needs[file]...)) {
			if !slices.Contains(order, f) {
				order = append(order, f)
			}
		}
	}
	return order
}

// moduleName is a module file's name as the kernel says it.
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}
