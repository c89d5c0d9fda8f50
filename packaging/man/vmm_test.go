// SPDX-License-Identifier: Apache-2.0

// Package man holds the manual pages to what they describe. vmctl(1) is held to
// its commands where these are.
package man

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// names are the first groups of all matches, sorted, each once.
func names(text, expr string) []string {
	var list []string
	for _, m := range regexp.MustCompile(expr).FindAllStringSubmatch(text, -1) {
		list = append(list, m[1])
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// same compares two sorted lists of what there is.
func same(t *testing.T, what string, manual, source []string) {
	t.Helper()
	for _, name := range source {
		if !slices.Contains(manual, name) {
			t.Errorf("%s %s: not in the manual", what, name)
		}
	}
	for _, name := range manual {
		if !slices.Contains(source, name) {
			t.Errorf("%s %s: in the manual alone", what, name)
		}
	}
}

// TestNames: the manual names all that vmm.h defines, and nothing else.
func TestNames(t *testing.T) {
	header, manual := read(t, "../../abi/vmm.h"), read(t, "vmm.4")
	// VMM_RIGHT_* and its like stand for a whole group.
	constants := regexp.MustCompile(`\bVMM_[A-Z0-9_]*[A-Z0-9]\b`).FindAllString(manual, -1)
	slices.Sort(constants)
	same(t, "constant", slices.Compact(constants), names(header, `#define (VMM_[A-Z0-9_]+)\s+[^_\s]`))
	var commands []string
	for _, entry := range names(manual, `(?m)^\.It ([A-Z_]+(?: , [A-Z_]+)?) Pq`) {
		commands = append(commands, strings.Split(entry, " , ")...)
	}
	same(t, "command", commands, names(header, `#define VMM_IOC_(\w+)\s+_IO\(`))
}

// fields takes a structure's body apart, without comments.
func fields(body string) string {
	body = regexp.MustCompile(`(?s)/\*.*?\*/`).ReplaceAllString(body, "")
	return strings.Join(strings.Fields(body), " ")
}

// TestStructures: every structure stands in the manual as vmm.h has it, with a
// word on each field.
func TestStructures(t *testing.T) {
	structs := regexp.MustCompile(`(?ms)^struct (vmm_\w+) \{\n(.*?)^\};`)
	manual := map[string]string{}
	for _, m := range structs.FindAllStringSubmatch(read(t, "vmm.4"), -1) {
		manual[m[1]] = m[2]
		for line := range strings.Lines(m[2]) {
			if !regexp.MustCompile(`; +/\* (in|out|0)\b.* \*/$`).MatchString(strings.TrimSpace(line)) {
				t.Errorf("struct %s: %q does not say in or out", m[1], line)
			}
		}
	}
	for _, m := range structs.FindAllStringSubmatch(read(t, "../../abi/vmm.h"), -1) {
		if got, want := fields(manual[m[1]]), fields(m[2]); got != want {
			t.Errorf("struct %s is\n%s\nin the manual and\n%s\nin vmm.h", m[1], got, want)
		}
		delete(manual, m[1])
	}
	for name := range manual {
		t.Errorf("struct %s: in the manual alone", name)
	}
}

// states says in the manual's words what a row of a command table allows.
var states = map[string]string{
	"VMM_STATES_ANY":         "any state",
	"VMM_STATES_UNTIL_STOP":  "created, bound, running",
	"VMM_STATES_LIVE":        "bound, running",
	"VMM_STATE_BIT(CREATED)": "created",
	"VMM_STATE_BIT(BOUND)":   "bound",
}

// TestRightsAndStates: what each entry begins with is what the module checks.
func TestRightsAndStates(t *testing.T) {
	manual := read(t, "vmm.4")
	row := regexp.MustCompile(`(?s)\.cmd = VMM_IOC_(\w+),(.*?)\.handler`)
	seen := 0
	for _, file := range []string{"vm_file.c", "vcpu.c"} {
		for _, m := range row.FindAllStringSubmatch(read(t, "../../kmod/"+file), -1) {
			if m[1] == "GET_INFO" {
				continue
			}
			seen++
			entry := regexp.MustCompile(`(?m)^\.It (?:[A-Z_]+ , )?` + m[1] + `(?: , [A-Z_]+)? Pq.*\n(.*)$`).FindStringSubmatch(manual)
			if entry == nil {
				t.Errorf("%s: no entry", m[1])
				continue
			}
			want := ""
			if right := regexp.MustCompile(`\.rights = VMM_RIGHT_(\w+)`).FindStringSubmatch(m[2]); right != nil {
				want = right[1] + "; "
			}
			expr := regexp.MustCompile(`\.states = (.*),`).FindStringSubmatch(m[2])[1]
			stopped := strings.HasSuffix(expr, " | VMM_STATE_BIT(STOPPED)")
			words, ok := states[strings.TrimSuffix(expr, " | VMM_STATE_BIT(STOPPED)")]
			if !ok {
				t.Errorf("%s: states %s", m[1], expr)
			}
			got := strings.ToLower(entry[1])
			if !regexp.MustCompile(`^` + strings.ToLower(want+words) + `[.,]`).MatchString(got) {
				t.Errorf("%s: the manual says %q, the module checks %q", m[1], entry[1], want+words)
			}
			// Of a pair only one may work on what is stopped.
			if stopped && !regexp.MustCompile(`, stopped\.|`+strings.ToLower(m[1])+` also stopped\.`).MatchString(got) {
				t.Errorf("%s also works when stopped", m[1])
			}
		}
	}
	if seen < 25 {
		t.Errorf("only %d commands found in the module", seen)
	}
}

// TestParameters: names and defaults of the module's parameters.
func TestParameters(t *testing.T) {
	manual, source := read(t, "vmm.4"), read(t, "../../kmod/limits.c")
	params := names(source, `module_param_cb\((\w+),`)
	same(t, "parameter", names(manual, `\.It Va (\w+)`), params)
	for _, name := range params {
		value := regexp.MustCompile(`\.` + name + ` = (.*),`).FindStringSubmatch(source)[1]
		value = strings.Replace(value, "ULL << 40", " TiB", 1)
		if !regexp.MustCompile(`\.It Va ` + name + `\n.*\(` + value + `\)\.\n`).MatchString(manual) {
			t.Errorf("%s: the manual does not say %s", name, value)
		}
	}
}

// TestTracepoints: names and fields.
func TestTracepoints(t *testing.T) {
	var source []string
	for _, m := range regexp.MustCompile(`(?s)\b(?:TRACE_EVENT\(|DEFINE_EVENT\(\w+, )(\w+),\s*TP_PROTO\((.*?)\)`).FindAllStringSubmatch(read(t, "../../kmod/trace.h"), -1) {
		var args []string
		for _, arg := range strings.Split(m[2], ",") {
			typ, name, _ := strings.Cut(strings.TrimSpace(arg), " ")
			if (typ == "u64") != (name == "vm") {
				t.Errorf("%s: %s is %s", m[1], name, typ)
			}
			args = append(args, name)
		}
		source = append(source, m[1]+" "+strings.Join(args, " , "))
	}
	var manual []string
	for _, m := range regexp.MustCompile(`\.It Li vmm:(\w+) Pq Va (.*)`).FindAllStringSubmatch(read(t, "vmm.4"), -1) {
		manual = append(manual, m[1]+" "+m[2])
	}
	same(t, "tracepoint", manual, source)
}
