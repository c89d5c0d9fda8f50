// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// clean makes a text from elsewhere safe to print in a line: a guest or a
// stranger must not move the cursor of the one who lists.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		if r == '\n' || r == '\t' || r == '\r' {
			return ' '
		}
		return '\uFFFD'
	}, s)
}

// maxLine bounds a line whose text comes from elsewhere, in characters.
const maxLine = 2000

// oneLine cleans a text and cuts it where nobody reads on.
func oneLine(s string) string {
	line := []rune(clean(strings.TrimSpace(s)))
	if len(line) > maxLine {
		return string(line[:maxLine]) + "..."
	}
	return string(line)
}

// size writes bytes in the largest binary unit that they fill, exactly where
// that needs no more than two decimals.
func size(bytes int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	value, unit := float64(bytes), 0
	for value >= 1024 && unit < len(units)-1 {
		value /= 1024
		unit++
	}
	return strconv.FormatFloat(float64(int64(value*100))/100, 'f', -1, 64) + " " + units[unit]
}

// parseSize reads a number of bytes: 512M, 1.5GiB, 2g. Units are binary, a
// number without one is MiB as everywhere in this field.
func parseSize(s string) (int64, error) {
	number := strings.TrimRight(strings.ToLower(s), "kmgtib")
	shift, ok := map[string]int{
		"": 20, "b": 0, "k": 10, "kib": 10, "m": 20, "mib": 20, "g": 30, "gib": 30, "t": 40, "tib": 40,
	}[strings.ToLower(s)[len(number):]]
	value, err := strconv.ParseFloat(number, 64)
	if !ok || err != nil || !(value >= 0) || value*float64(int64(1)<<shift) > 1<<50 {
		return 0, fmt.Errorf("%q is no size; write it as 512M or 2G", s)
	}
	return int64(value * float64(int64(1)<<shift)), nil
}

// age says how long ago t was, in two to four columns.
func (p *program) age(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := p.now().Sub(t)
	switch {
	case d < 0:
		return "0s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}

// date writes a time in the zone of the one who asks.
func (p *program) date(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.In(p.now().Location()).Format("2006-01-02 15:04:05")
}
