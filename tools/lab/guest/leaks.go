// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const leakFile = "/sys/kernel/debug/kmemleak"

// leakAge is how old an object must be for the detector to tell of it: the
// kernel's five seconds, and some for a clock that an emulated machine is late with.
const leakAge = 6 * time.Second

// leaks asks the kernel's detector for objects that the module allocated and
// nobody points to any more. Kernels without the detector have none.
type leaks struct {
	on      bool
	symbols []symbol // of the module, while it was loaded
}

// symbol is where a function begins.
type symbol struct {
	at   uint64
	name string
}

// startLeakScan forgets what the kernel leaked before.
func startLeakScan() *leaks {
	l := new(leaks)
	if _, err := os.Stat(leakFile); err != nil {
		return l
	}
	l.on = true
	os.WriteFile(leakFile, []byte("scan=off"), 0)
	os.WriteFile(leakFile, []byte("clear"), 0)
	return l
}

// learn notes where the module's functions are: the detector is asked when it is
// unloaded, and knows addresses alone then.
func (l *leaks) learn() {
	if !l.on {
		return
	}
	b, err := os.ReadFile("/proc/kallsyms")
	if err == nil {
		l.symbols = append(l.symbols, parseSymbols(b)...)
		slices.SortFunc(l.symbols, func(a, b symbol) int { return cmp.Compare(a.at, b.at) })
	}
}

func parseSymbols(kallsyms []byte) (list []symbol) {
	for line := range bytes.Lines(kallsyms) {
		if !bytes.HasSuffix(line, []byte("\t["+moduleName+"]\n")) {
			continue
		}
		f := strings.Fields(string(line))
		if at, err := strconv.ParseUint(f[0], 16, 64); err == nil && strings.ContainsAny(f[1], "tT") {
			list = append(list, symbol{at, f[2]})
		}
	}
	return list
}

// end returns what was found since the start.
func (l *leaks) end() string {
	if !l.on {
		return ""
	}
	time.Sleep(leakAge)
	// The scan takes a lock for each pointer; to prove them all takes minutes.
	os.WriteFile("/proc/sys/kernel/prove_locking", []byte("0"), 0)
	// An object counts as leaked only when two scans in a row miss it.
	for range 2 {
		if err := os.WriteFile(leakFile, []byte("scan"), 0); err != nil {
			return fmt.Sprintf("kernel memory was not searched for leaks: %v", err)
		}
	}
	b, err := os.ReadFile(leakFile)
	if err != nil {
		return fmt.Sprintf("kernel memory was not searched for leaks: %v", err)
	}
	if s := l.ofModule(string(b)); s != "" {
		return "kernel memory leaked:\n" + s
	}
	return ""
}

// frame is a line of a trace: an address, and what the kernel knows of it.
var frame = regexp.MustCompile(`^( +\[<[^>]*>\]) (?:0x([0-9a-f]+)|.*\[` + moduleName + `\])$`)

// ofModule picks the objects out of a report whose traces lead through the module.
func (l *leaks) ofModule(report string) string {
	var kept, object strings.Builder
	ours := false
	end := func() {
		if ours {
			kept.WriteString(object.String())
		}
		object.Reset()
		ours = false
	}
	for s := bufio.NewScanner(strings.NewReader(report)); s.Scan(); {
		line := s.Text()
		if strings.HasPrefix(line, "unreferenced object") {
			end()
		}
		if m := frame.FindStringSubmatch(line); m != nil {
			at, _ := strconv.ParseUint(m[2], 16, 64)
			if name := l.name(at); name != "" {
				line, ours = m[1]+" "+name, true
			}
			ours = ours || m[2] == ""
		}
		object.WriteString(line + "\n")
	}
	end()
	return kept.String()
}

// farEnough is behind the last function of the module.
const farEnough = 64 << 10

// name is that of a place in the module, empty for others.
func (l *leaks) name(at uint64) string {
	i, found := slices.BinarySearchFunc(l.symbols, at, func(s symbol, at uint64) int { return cmp.Compare(s.at, at) })
	if !found {
		i--
	}
	if i < 0 || at-l.symbols[i].at > farEnough {
		return ""
	}
	s := l.symbols[i]
	return fmt.Sprintf("%s+%#x [%s]", s.name, at-s.at, moduleName)
}
