// SPDX-License-Identifier: Apache-2.0

// Checktree fails when a source file breaks a rule of form: Go files are as
// gofmt writes them, each file names its licence, none is too long to read.
//
//	checktree [DIR]
//
// It looks at the files below DIR (default: the working directory) as they
// lie there, prints one line for each that breaks a rule, and exits 0 (all in
// order), 1 (something was found) or 2 (it could not look).
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
		fmt.Fprintln(os.Stderr, "usage: checktree [DIR]")
		os.Exit(2)
	}
	found, err := check(root)
	if err != nil {
		fmt.Fprintf(os.Stderr, "checktree: %v\n", err)
		os.Exit(2)
	}
	for _, f := range found {
		fmt.Println(f)
	}
	if len(found) > 0 {
		os.Exit(1)
	}
}
