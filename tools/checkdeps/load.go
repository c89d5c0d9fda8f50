// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"vmctl/tools/source"
)

// file is what the table is asked about: one Go file, what it imports and
// which names of those packages it uses.
type file struct {
	name    string // relative to the root, with slashes
	pkg     string // folder of the file, "." for the root
	test    bool   // name ends in _test.go
	imports []use  // path of each import; ours are relative to the module
	names   []use  // "net/http.Server" for each qualified name, once a file
}

type use struct {
	what string
	line int
	ours bool
}

// load parses every Go file below root. It does not ask the go command: that
// would leave out files that this platform or these tags do not build.
func load(root string) ([]file, error) {
	module, err := moduleName(root)
	if err != nil {
		return nil, err
	}
	var files []file
	err = source.Walk(root, func(rel string) error {
		if !strings.HasSuffix(rel, ".go") {
			return nil
		}
		f, err := parse(root, rel, module)
		if err != nil {
			return err
		}
		files = append(files, f)
		return nil
	})
	return files, err
}

func moduleName(root string) (string, error) {
	text, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "module" {
			return f[1], nil
		}
	}
	return "", fmt.Errorf("%s: no module line", filepath.Join(root, "go.mod"))
}

func parse(root, rel, module string) (file, error) {
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(rel)))
	if err != nil {
		return file{}, err
	}
	fset := token.NewFileSet()
	tree, err := parser.ParseFile(fset, rel, bytes.TrimPrefix(text, []byte("\ufeff")), parser.SkipObjectResolution)
	if err != nil {
		return file{}, err
	}
	f := file{name: rel, pkg: path.Dir(rel), test: strings.HasSuffix(rel, "_test.go")}
	local := map[string]string{} // name in this file -> import path
	for _, spec := range tree.Imports {
		full, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return file{}, fmt.Errorf("%s: %w", rel, err)
		}
		what, ours := strings.CutPrefix(full, module+"/")
		if full == module {
			what, ours = ".", true
		}
		f.imports = append(f.imports, use{what, fset.Position(spec.Pos()).Line, ours})
		if spec.Name != nil {
			local[spec.Name.Name] = full
		} else {
			local[path.Base(full)] = full
		}
	}
	f.names = qualified(tree, fset, local)
	return f, nil
}

// qualified lists names such as http.Server, as "net/http.Server". A local
// variable with the name of a package would be taken for it: that hides
// nothing and is rare.
func qualified(tree *ast.File, fset *token.FileSet, local map[string]string) []use {
	var names []use
	seen := map[string]bool{}
	ast.Inspect(tree, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		id, ok := sel.X.(*ast.Ident)
		if !ok || local[id.Name] == "" {
			return true
		}
		what := local[id.Name] + "." + sel.Sel.Name
		if !seen[what] {
			seen[what] = true
			names = append(names, use{what: what, line: fset.Position(sel.Pos()).Line})
		}
		return true
	})
	return names
}
