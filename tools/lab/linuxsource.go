// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// unpackSource fetches Debian's source of a kernel and unpacks it into dir; only
// the members named, if any are.
func (l *lab) unpackSource(ctx context.Context, tree *toolTree, suite, version, dir string, members ...string) error {
	if err := l.wantHostTools(ctx); err != nil {
		return err
	}
	mirror, err := debianMirror(aptFolder)
	if err != nil {
		return err
	}
	temp, err := os.MkdirTemp(dir, "apt-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	a, err := openArchive(ctx, temp, mirror, suite)
	if err != nil {
		return err
	}
	name := "linux-source-" + version
	list, err := a.resolve(ctx, suite, name, name)
	if err != nil {
		return err
	}
	if err := a.unpack(ctx, temp, list); err != nil {
		return err
	}
	args := []string{"-x", "-f", filepath.Join(temp, "usr/src", name+".tar.xz"), "-C", dir, "--strip-components=1"}
	for _, m := range members {
		args = append(args, name+"/"+m)
	}
	cmd, err := l.inTree(ctx, tree, nil, "/", append([]string{"tar"}, args...))
	if err != nil {
		return err
	}
	if _, err := output(cmd); err != nil {
		return fmt.Errorf("unpack %s: %w", name, err)
	}
	return nil
}
