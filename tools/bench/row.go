// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
)

// row is one line of the table and of build/bench.json.
type row struct {
	Name    string  `json:"name"`
	Ours    float64 `json:"ours"`
	Other   float64 `json:"other"` // 0: there is nothing to compare with
	Against string  `json:"against"`
	Unit    string  `json:"unit"`
	Ratio   float64 `json:"ratio"` // ours to other, or to the goal where there is no other
	Goal    float64 `json:"goal"`  // the ratio, or without other the value, to reach at most
	Met     bool    `json:"met"`
}

// against compares with a peer: the ratio may be goal at most, and band more for
// what a clock cannot tell apart.
func against(name, peer, unit string, ours, other, goal, band float64) row {
	r := row{Name: name, Ours: ours, Other: other, Against: peer, Unit: unit, Goal: goal}
	if other > 0 {
		r.Ratio = ours / other
	}
	r.Met = other > 0 && ours > 0 && r.Ratio <= goal+band
	return r
}

// noMore compares counts of what is best not there at all.
func noMore(name, peer, unit string, ours, other float64) row {
	r := against(name, peer, unit, ours, other, 1, 0)
	r.Met = ours <= other
	return r
}

// limit compares with a budget.
func limit(name, unit string, ours, goal float64) row {
	return row{Name: name, Ours: ours, Against: "budget", Unit: unit, Goal: goal, Ratio: ours / goal, Met: ours > 0 && ours <= goal}
}

// median of at least one value.
func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// table prints the rows for people.
func table(out io.Writer, rows []row) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WHAT\tOURS\tOTHER\tAGAINST\tUNIT\tRATIO\tGOAL\tMET")
	for _, r := range rows {
		other, met := "-", "no"
		if r.Other > 0 {
			other = fmt.Sprintf("%.4g", r.Other)
		}
		if r.Met {
			met = "yes"
		}
		fmt.Fprintf(w, "%s\t%.4g\t%s\t%s\t%s\t%.3f\t%g\t%s\n", r.Name, r.Ours, other, r.Against, r.Unit, r.Ratio, r.Goal, met)
	}
	return w.Flush()
}

// save writes the rows for programs.
func save(path string, rows []row) error {
	b, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
