// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// starter is what the lab derives from a kernel so that its machine starts
// fast: the image unpacked, to be entered as a PVH kernel, because emulated
// unpacking takes more than a second, and the modules of the initramfs.
type starter struct {
	image   string
	modules string // an archive; empty for a kernel without modules
}

const starterSpace = 128 << 20

// starter returns what starts the kernel, made if need be.
func (l *lab) starter(ctx context.Context, tree *toolTree, k *kernel) (*starter, error) {
	if k.dir == "" {
		return &starter{image: k.image}, nil
	}
	index := filepath.Join(k.dir, "usr/lib/modules", k.release, "modules.dep")
	r := recipe{noun: "start", lines: slices.Concat([]string{k.dir}, rootModules, otherModules), space: starterSpace}
	for _, file := range []string{k.image, index} {
		info, err := os.Stat(file)
		if err != nil {
			return nil, fmt.Errorf("kernel %s: %w", k.release, err)
		}
		r.lines = append(r.lines, fmt.Sprint(file, info.Size(), info.ModTime().UnixNano()))
	}
	dir, err := l.cache.prepare(ctx, r, func(dir string) error { return k.makeStarter(ctx, tree, dir) })
	if err != nil {
		return nil, err
	}
	return &starter{image: filepath.Join(dir, "vmlinux"), modules: filepath.Join(dir, "modules.cpio")}, nil
}

func (k *kernel) makeStarter(ctx context.Context, tree *toolTree, dir string) error {
	modules, err := k.packModules(ctx, tree)
	if err != nil {
		return fmt.Errorf("modules of %s: %w", k.release, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "modules.cpio"), modules, 0o644); err != nil {
		return err
	}
	image, err := unpackImage(ctx, tree, k.image, dir)
	if err != nil {
		return fmt.Errorf("image of %s: %w", k.release, err)
	}
	return os.WriteFile(filepath.Join(dir, "vmlinux"), image, 0o644)
}

// Offsets in the header of a bzImage, after Documentation/arch/x86/boot.rst.
const (
	offSetupSects    = 0x1f1
	offMagic         = 0x202
	offPayload       = 0x248
	offPayloadLength = 0x24c
	headerEnd        = 0x250
)

// packers are the programs of the tree that unpack an image, by the bytes that
// it begins with.
var packers = []struct{ magic, file, name string }{
	{"\x28\xb5\x2f\xfd", "usr/bin/zstd", "zstd"},
	{"\xfd7zXZ\x00", "usr/bin/xz", "xz"},
}

// unpackImage returns the ELF inside a bzImage. One packed in a way that
// Debian's kernels are not is returned as it is: QEMU boots it as well, slower.
func unpackImage(ctx context.Context, tree *toolTree, file, dir string) ([]byte, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	payload, err := imagePayload(b)
	if err != nil {
		return nil, err
	}
	for _, p := range packers {
		if !bytes.HasPrefix(payload, []byte(p.magic)) {
			continue
		}
		packed := filepath.Join(dir, "packed")
		if err := os.WriteFile(packed, payload, 0o644); err != nil {
			return nil, err
		}
		defer os.Remove(packed)
		return tree.run(ctx, p.file, p.name, "-qdc", packed)
	}
	return b, nil
}

// imagePayload finds the packed kernel; its last four bytes say how large it
// is unpacked, and are no part of it.
func imagePayload(b []byte) ([]byte, error) {
	if len(b) < headerEnd || string(b[offMagic:offMagic+4]) != "HdrS" {
		return nil, fmt.Errorf("not a bzImage")
	}
	sects := uint64(b[offSetupSects])
	if sects == 0 {
		sects = 4
	}
	start := (sects+1)*512 + uint64(binary.LittleEndian.Uint32(b[offPayload:]))
	end := start + uint64(binary.LittleEndian.Uint32(b[offPayloadLength:]))
	if end > uint64(len(b)) || end < start+4 {
		return nil, fmt.Errorf("bzImage is cut short")
	}
	return b[start : end-4], nil
}
