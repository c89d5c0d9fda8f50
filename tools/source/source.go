// SPDX-License-Identifier: Apache-2.0

// Package source finds the hand-kept files of a checkout. The checks of the
// tree read what lies in the folder, not what is committed, so that they say
// the same before and after a commit.
package source

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// skipped names the folders that hold nothing of ours: what was built, what
// was fetched, and inputs that tests keep broken on purpose.
var skipped = map[string]bool{
	"build": true, "dist": true, "node_modules": true, "testdata": true, "test-results": true,
}

// Walk calls fn with the slash-separated path, relative to root, of each
// regular file below root. Hidden folders and those of other modules are left
// out. The first error of fn or of the file system ends the walk.
func Walk(root string, fn func(rel string) error) error {
	return filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if rel != "." && leaveOut(p) {
				return filepath.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() {
			return nil
		}
		return fn(filepath.ToSlash(rel))
	})
}

func leaveOut(dir string) bool {
	name := path.Base(filepath.ToSlash(dir))
	if skipped[name] || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") {
		return true
	}
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}
