// SPDX-License-Identifier: Apache-2.0

package abi_test

import (
	"bytes"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// What of the kernel's schema for such specs (genetlink.yaml) vmm.yaml uses. A
// field that is not here is refused.
type (
	spec struct {
		Name        string
		Protocol    string
		UAPIHeader  string `yaml:"uapi-header"`
		Doc         string
		Definitions []specEnum
		Sets        []specSet `yaml:"attribute-sets"`
		Operations  struct {
			Model  string `yaml:"enum-model"`
			Prefix string `yaml:"name-prefix"`
			List   []specOperation
		}
		Groups struct{ List []struct{ Name string } } `yaml:"mcast-groups"`
	}
	specEnum struct {
		Type, Name, Doc string
		Start           int `yaml:"value-start"`
		Entries         []yaml.Node
	}
	specSet struct {
		Name       string
		Prefix     string `yaml:"name-prefix"`
		Attributes []specAttribute
	}
	specAttribute struct {
		Name, Type, Doc, Enum string
		Value                 *int
		AsFlags               bool   `yaml:"enum-as-flags"`
		Multi                 bool   `yaml:"multi-attr"`
		Hint                  string `yaml:"display-hint"`
		Checks                map[string]int
	}
	specOperation struct {
		Name, Doc string
		Value     int
		Set       string `yaml:"attribute-set"`
		Flags     []string
		Do, Dump  struct{ Request, Reply struct{ Attributes []string } }
		Notify    string
		Group     string `yaml:"mcgrp"`
	}
)

// enumPrefix is what the constants of an enum begin with in vmm.h.
var enumPrefix = map[string]string{
	"vm-state": "VMM_VM_STATE_", "pause": "VMM_PAUSE_", "reason": "VMM_REASON_", "event": "VMM_EVENT_",
	"limit": "VMM_LIMIT_", "vcpu-state": "VMM_VCPU_STATE_", "backend": "VMM_BACKEND_",
	"backend-state": "VMM_BACKEND_STATE_", "role": "VMM_ROLE_",
}

func readSpec(t *testing.T) spec {
	t.Helper()
	text, err := os.ReadFile("vmm.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var s spec
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&s); err != nil {
		t.Fatal(err)
	}
	return s
}

// cName is how a name of the spec is written in C.
func cName(prefix, name string) string {
	return strings.ToUpper(strings.ReplaceAll(prefix+name, "-", "_"))
}

// values has the number of each thing that the spec names, by its name in C.
func (s *spec) values(t *testing.T) map[string]int {
	t.Helper()
	values := map[string]int{}
	add := func(name string, value int) {
		if _, twice := values[name]; twice {
			t.Errorf("%s: twice", name)
		}
		values[name] = value
	}
	for _, enum := range s.Definitions {
		prefix, ok := enumPrefix[enum.Name]
		if !ok {
			t.Errorf("enum %s: unknown", enum.Name)
		}
		next := enum.Start
		for _, node := range enum.Entries {
			entry := struct {
				Name, Doc string
				Value     *int
			}{Name: node.Value}
			if node.Kind != yaml.ScalarNode {
				if err := node.Decode(&entry); err != nil {
					t.Fatal(err)
				}
			}
			if entry.Value != nil {
				next = *entry.Value
			}
			if enum.Type == "flags" {
				add(cName(prefix, entry.Name), 1<<next)
			} else {
				add(cName(prefix, entry.Name), next)
			}
			next++
		}
	}
	for _, set := range s.Sets {
		next := 1
		for _, a := range set.Attributes {
			if a.Value != nil {
				next = *a.Value
			}
			add(cName(set.Prefix, a.Name), next)
			next++
		}
	}
	for _, op := range s.Operations.List {
		add(cName(s.Operations.Prefix, op.Name), op.Value)
	}
	return values
}

// TestSpecNumbers holds the numbers of vmm.yaml to those of vmm.h, both ways.
func TestSpecNumbers(t *testing.T) {
	s := readSpec(t)
	header := map[string]int{}
	ours := regexp.MustCompile(`^VMM_(A|CMD|VM_STATE|VCPU_STATE|PAUSE|REASON|EVENT|LIMIT|BACKEND|ROLE)_`)
	for _, c := range readGolden(t).consts {
		value, err := strconv.ParseInt(c[1], 0, 64)
		if err == nil && ours.MatchString(c[0]) {
			header[c[0]] = int(value)
		}
	}
	values := s.values(t)
	for _, name := range slices.Sorted(maps.Keys(header)) {
		if got, ok := values[name]; !ok {
			t.Errorf("%s is not in vmm.yaml", name)
		} else if got != header[name] {
			t.Errorf("%s is %d in vmm.yaml, %d in vmm.h", name, got, header[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if _, ok := header[name]; !ok {
			t.Errorf("%s is not in vmm.h", name)
		}
	}
}

// TestSpecTypes holds the types of attributes to what vmm.h says of them.
func TestSpecTypes(t *testing.T) {
	text, err := os.ReadFile("vmm.h")
	if err != nil {
		t.Fatal(err)
	}
	comments := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^#define (VMM_A_\w+)\s+\d+(?:\s+/\* (.*) \*/)?$`).FindAllStringSubmatch(string(text), -1) {
		comments[m[1]] = m[2]
	}
	for _, set := range readSpec(t).Sets {
		for _, a := range set.Attributes {
			name := cName(set.Prefix, a.Name)
			want := a.Type
			switch a.Type {
			case "pad":
				want = ""
			case "binary":
				want = strconv.Itoa(a.Checks["exact-len"]) + " bytes"
			case "string":
				want = "NUL-terminated string"
			}
			comment := comments[name]
			// "u64, four times" or "once for each file".
			if !strings.HasPrefix(comment, want) || a.Multi != regexp.MustCompile(`times|once`).MatchString(comment) {
				t.Errorf("%s: %s in vmm.yaml, %q in vmm.h", name, a.Type, comment)
			}
		}
	}
}

// TestSpecNames follows every name in vmm.yaml to what it names.
func TestSpecNames(t *testing.T) {
	s := readSpec(t)
	if s.Name != "vmm" || s.Protocol != "genetlink" || s.UAPIHeader != "vmm.h" || s.Doc == "" || s.Operations.Model != "unified" {
		t.Errorf("head: %s, %s, %s, %s", s.Name, s.Protocol, s.UAPIHeader, s.Operations.Model)
	}
	enums := map[string]string{}
	for _, e := range s.Definitions {
		enums[e.Name] = e.Type
	}
	sets := map[string][]string{}
	for _, set := range s.Sets {
		for _, a := range set.Attributes {
			sets[set.Name] = append(sets[set.Name], a.Name)
			if a.Enum != "" && enums[a.Enum] == "" {
				t.Errorf("%s of %s: no enum %s", a.Name, set.Name, a.Enum)
			}
			if a.AsFlags != (enums[a.Enum] == "flags") {
				t.Errorf("%s of %s: flags or not", a.Name, set.Name)
			}
		}
	}
	dumps := map[string]bool{}
	for _, op := range s.Operations.List {
		if op.Doc == "" {
			t.Errorf("%s: no doc", op.Name)
		}
		if op.Notify != "" {
			if !dumps[op.Notify] || len(s.Groups.List) != 1 || op.Group != s.Groups.List[0].Name {
				t.Errorf("%s: notifies as %s in group %s", op.Name, op.Notify, op.Group)
			}
			continue
		}
		if !slices.Equal(op.Flags, []string{"admin-perm"}) {
			t.Errorf("%s: flags %v", op.Name, op.Flags)
		}
		for _, list := range [][]string{op.Do.Request.Attributes, op.Do.Reply.Attributes, op.Dump.Request.Attributes, op.Dump.Reply.Attributes} {
			for _, name := range list {
				if !slices.Contains(sets[op.Set], name) {
					t.Errorf("%s: set %s has no %s", op.Name, op.Set, name)
				}
			}
		}
		dumps[op.Name] = len(op.Dump.Reply.Attributes) > 0
	}
}
