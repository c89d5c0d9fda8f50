// SPDX-License-Identifier: Apache-2.0

// Package ui holds the built web interface.
package ui

import (
	"embed"
	"io/fs"
)

// dist is what `npm run build` makes. Only its .gitkeep is in the repository,
// so that the programs compile where Node has not run yet.
//
//go:embed all:dist
var dist embed.FS

// Files returns the tree that belongs under /ui/: index.html, which must not
// be cached and answers for every path below /ui/ that is not a file, and
// assets/, whose names carry a hash and never change. Without a build there is
// no index.html.
func Files() fs.FS {
	files, err := fs.Sub(dist, "dist")
	if err != nil {
		return dist // fs.Sub fails on an invalid name alone, and "dist" is none
	}
	return files
}
