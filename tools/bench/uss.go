// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// reMapping is the line of smaps that begins a mapping: its bounds and rights.
var reMapping = regexp.MustCompile(`^([0-9a-f]+)-([0-9a-f]+) (\S{4}) `)

// privateMemory returns the bytes that a process shares with nobody, its guest's
// memory left out.
func privateMemory(pid int, guest uint64) (uint64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return sumPrivate(f, guest)
}

// sumPrivate adds up the private pages of all mappings but the guest's memory:
// the one that can be written and is as large as that, to the byte.
func sumPrivate(smaps io.Reader, guest uint64) (uint64, error) {
	var total uint64
	guests := 0
	skip := false
	for s := bufio.NewScanner(smaps); s.Scan(); {
		line := s.Text()
		if m := reMapping.FindStringSubmatch(line); m != nil {
			size, err := span(m[1], m[2])
			if err != nil {
				return 0, err
			}
			skip = size == guest && strings.HasPrefix(m[3], "rw")
			if skip {
				guests++
			}
			continue
		}
		key, rest, _ := strings.Cut(line, ":")
		if skip || !strings.HasPrefix(key, "Private_") {
			continue
		}
		kib, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("smaps: %q: %w", line, err)
		}
		total += kib << 10
	}
	if guests != 1 {
		return 0, fmt.Errorf("smaps: %d mappings of %d bytes, the guest's memory is one", guests, guest)
	}
	return total, nil
}

// span is the length of a mapping between two addresses in hexadecimal.
func span(from, to string) (uint64, error) {
	a, err := strconv.ParseUint(from, 16, 64)
	if err != nil {
		return 0, fmt.Errorf("smaps: %w", err)
	}
	b, err := strconv.ParseUint(to, 16, 64)
	if err != nil {
		return 0, fmt.Errorf("smaps: %w", err)
	}
	return b - a, nil
}
