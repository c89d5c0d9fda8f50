// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"
)

// symbol is one macro or structure of a header.
type symbol struct {
	c      string   // name in C
	goN    string   // name in Go
	typ    string   // type of a constant; "" when untyped
	ioctl  bool     // its value is made by _IO, _IOR or _IOW
	fields []string // names in C of a structure's fields, in order
}

// symbols are the macros and structures that get a Go name, in the order of
// their headers.
type symbols struct {
	consts  []symbol
	structs []symbol
}

var (
	reComment = regexp.MustCompile(`(?s)/\*.*?\*/`)
	reMacro   = regexp.MustCompile(`(?m)^#define[ \t]+((?:__)?(?:VMM|KVM)_\w+)[ \t]+(\S.*)$`)
	reStruct  = regexp.MustCompile(`(?ms)^struct ((?:vmm|kvm)_\w+) \{\n(.*?)^\};`)
	reField   = regexp.MustCompile(`(\w+)[ \t]*(?:\[[^\]]*\])*[ \t]*(?:,|$)`)
)

// scan adds every VMM_ or KVM_ macro with a value and every structure of the
// header at path.
func (s *symbols) scan(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := s.scanText(string(text)); err != nil {
		return fmt.Errorf("scan %s: %w", path, err)
	}
	return nil
}

func (s *symbols) scanText(text string) error {
	text = reComment.ReplaceAllString(text, "")
	macros := reMacro.FindAllStringSubmatch(text, -1)
	structs := reStruct.FindAllStringSubmatch(text, -1)
	if len(macros) == 0 || len(structs) == 0 {
		return fmt.Errorf("no constant or no structure in it")
	}
	for _, m := range macros {
		s.consts = append(s.consts, symbol{c: m[1], ioctl: strings.HasPrefix(m[2], "_IO")})
	}
	for _, m := range structs {
		fields, err := fieldNames(m[2])
		if err != nil {
			return fmt.Errorf("struct %s: %w", m[1], err)
		}
		s.structs = append(s.structs, symbol{c: m[1], fields: fields})
	}
	return nil
}

// fieldNames lists what the body of a structure declares. Nested definitions are
// refused: cgo gives their types no name.
func fieldNames(body string) ([]string, error) {
	if strings.ContainsAny(body, "{}:") {
		return nil, fmt.Errorf("nested definition or bit field")
	}
	var names []string
	for decl := range strings.SplitSeq(body, ";") {
		decl = strings.TrimSpace(decl)
		if decl == "" {
			continue
		}
		found := reField.FindAllStringSubmatch(decl, -1)
		if len(found) == 0 {
			return nil, fmt.Errorf("declaration %q", decl)
		}
		for _, f := range found {
			names = append(names, f[1])
		}
	}
	return names, nil
}
