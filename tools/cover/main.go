// SPDX-License-Identifier: Apache-2.0

// Cover adds up what runs of the kernel module counted of its lines, and prints
// how many of them ran, by file and in all, and those that never did. It fails
// when there are fewer than it was told to want.
//
//	cover [-least PERCENT] FILE...
//
// The files are those of lab exec --cover: gcov's JSON, one document an object.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

func main() {
	least := flag.Float64("least", 0, "fail below this percentage")
	flag.Parse()
	if err := run(flag.Args(), *least, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "cover:", err)
		os.Exit(1)
	}
}

// counts is how often each line ran, by file and number.
type counts map[string]map[int]uint64

func run(files []string, least float64, out io.Writer) error {
	if len(files) == 0 {
		return errors.New("no files: give those of lab exec --cover")
	}
	all := counts{}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		err = all.read(f)
		f.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	ran, lines := all.report(out)
	if lines == 0 {
		return errors.New("not a line of the module is in them")
	}
	percent := share(ran, lines)
	if percent < least {
		return fmt.Errorf("%.1f %% of the lines ran, %.1f %% are wanted", percent, least)
	}
	return nil
}

// document is as much of gcov's as is needed.
type document struct {
	Files []struct {
		File  string
		Lines []struct {
			Number int `json:"line_number"`
			Count  uint64
		}
	}
}

// read adds the documents of one run.
func (c counts) read(r io.Reader) error {
	for d := json.NewDecoder(r); ; {
		var doc document
		err := d.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, f := range doc.Files {
			name := moduleFile(f.File)
			if name == "" {
				continue
			}
			if c[name] == nil {
				c[name] = map[int]uint64{}
			}
			for _, l := range f.Lines {
				c[name][l.Number] += l.Count
			}
		}
	}
}

// moduleFile is the name of a file of the module, empty for the kernel's headers
// and for what is a test itself.
func moduleFile(name string) string {
	dir, base := path.Split(path.Clean(name))
	if path.Base(dir) != "kmod" || strings.Contains(base, "_kunit.") {
		return ""
	}
	return "kmod/" + base
}

// report prints a row for each file and what did not run of it.
func (c counts) report(out io.Writer) (ran, lines int) {
	for _, name := range slices.Sorted(maps.Keys(c)) {
		var missed []int
		for _, n := range slices.Sorted(maps.Keys(c[name])) {
			if c[name][n] == 0 {
				missed = append(missed, n)
			}
		}
		n := len(c[name])
		fmt.Fprintf(out, "%-20s %5d of %5d  %5.1f %%  %s\n", name, n-len(missed), n, share(n-len(missed), n), ranges(missed))
		ran, lines = ran+n-len(missed), lines+n
	}
	fmt.Fprintf(out, "%-20s %5d of %5d  %5.1f %%\n", "all", ran, lines, share(ran, lines))
	return ran, lines
}

func share(part, whole int) float64 { return 100 * float64(part) / float64(max(whole, 1)) }

// ranges writes sorted numbers as 3-5 9.
func ranges(list []int) string {
	var words []string
	for i := 0; i < len(list); {
		j := i
		for j+1 < len(list) && list[j+1] == list[j]+1 {
			j++
		}
		if i == j {
			words = append(words, fmt.Sprint(list[i]))
		} else {
			words = append(words, fmt.Sprintf("%d-%d", list[i], list[j]))
		}
		i = j + 1
	}
	return strings.Join(words, " ")
}
