// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode/utf8"
)

const (
	formatTable = "table"
	formatJSON  = "json"
)

// table prints rows in columns two blanks apart. Cells are cleaned.
func (p *program) table(head []string, rows [][]string) error {
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{head}, rows...) {
		fmt.Fprintln(&trimmed{w}, strings.Join(cleaned(row), "\t"))
	}
	return w.Flush()
}

// fields prints one object as lines of name and value; lines without a value
// are left out.
func (p *program) fields(pairs ...[2]string) error {
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	for _, pair := range pairs {
		if pair[1] != "" {
			fmt.Fprintf(w, "%s:\t%s\n", pair[0], clean(pair[1]))
		}
	}
	return w.Flush()
}

func cleaned(row []string) []string {
	out := make([]string, len(row))
	for i, cell := range row {
		out[i] = clean(cell)
	}
	return out
}

// trimmed takes the blanks from the end of a line.
type trimmed struct{ w io.Writer }

func (t *trimmed) Write(b []byte) (int, error) {
	line := bytes.TrimRight(b, " \t\n")
	if _, err := t.w.Write(append(bytes.Clone(line), '\n')); err != nil {
		return 0, err
	}
	return len(b), nil
}

// json prints one value with indentation.
func (p *program) json(value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	_, err = p.out.Write(append(asciiControls(text), '\n'))
	return err
}

// jsonLine prints one value of a stream on one line.
func (p *program) jsonLine(value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	_, err = p.out.Write(append(asciiControls(text), '\n'))
	return err
}

// asciiControls escapes the control characters above ASCII, which the encoder
// leaves as they are and terminals obey. In JSON they stand in strings alone.
func asciiControls(text []byte) []byte {
	var out []byte
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		if r >= 0x7f && r < 0xa0 {
			out = fmt.Appendf(out, `\u%04x`, r)
		} else {
			out = append(out, text[:n]...)
		}
		text = text[n:]
	}
	return out
}
