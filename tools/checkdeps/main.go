// SPDX-License-Identifier: Apache-2.0

// Checkdeps fails when a Go package of this repository uses what the import
// table (table.go) does not grant it.
//
//	checkdeps [DIR]
//
// It reads the files below DIR (default: the working directory), whatever
// their build constraints, prints one line for each edge that has no row, and
// exits 0 (all in order), 1 (something was found) or 2 (it could not look).
package main

import (
	"fmt"
	"os"
)

func main() {
	root := "."
	switch len(os.Args) {
	case 1:
	case 2:
		root = os.Args[1]
	default:
		fmt.Fprintln(os.Stderr, "usage: checkdeps [DIR]")
		os.Exit(2)
	}
	files, err := load(root)
	if err != nil {
		fmt.Fprintf(os.Stderr, "checkdeps: %v\n", err)
		os.Exit(2)
	}
	found := table.check(files)
	for _, f := range found {
		fmt.Println(f)
	}
	if len(found) > 0 {
		fmt.Printf("checkdeps: %d uses that tools/checkdeps/table.go does not grant\n", len(found))
		os.Exit(1)
	}
}
