// SPDX-License-Identifier: Apache-2.0

package main

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParseOptions(t *testing.T) {
	t.Setenv("LAB_TEST_VALUE", "seven")
	o, err := parseOptions(strings.Fields("exec --kernel new --cpus 4 --memory 2G --forward 8443:443 --forward 80:81 " +
		"--env A=b --env LAB_TEST_VALUE --timeout 30s --dmesg log -- go test -v"))
	if err != nil {
		t.Fatal(err)
	}
	want := &options{
		command: "exec", kernel: "new", cpus: 4, memory: 2048, timeout: 30 * time.Second, dmesg: "log",
		forwards: []forward{{8443, 443}, {80, 81}},
		env:      []string{"A=b", "LAB_TEST_VALUE=seven"},
		argv:     []string{"go", "test", "-v"},
	}
	if !reflect.DeepEqual(o, want) {
		t.Errorf("got  %+v\nwant %+v", o, want)
	}
}

func TestOptionDefaults(t *testing.T) {
	for line, want := range map[string]options{
		"exec true":          {kernel: "6.12", cpus: 2, memory: 4096, timeout: 10 * time.Minute},
		"exec --icount true": {kernel: "6.12", cpus: 1, memory: 4096, timeout: 10 * time.Minute},
	} {
		o, err := parseOptions(strings.Fields(line))
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if o.kernel != want.kernel || o.cpus != want.cpus || o.memory != want.memory || o.timeout != want.timeout {
			t.Errorf("%s: %+v", line, o)
		}
	}
}

func TestMemorySizes(t *testing.T) {
	for text, want := range map[string]int{
		"4096": 4096, "4096M": 4096, "4096MiB": 4096, "4G": 4096, "1GiB": 1024, "256": 256,
		"": 0, "0": 0, "255": 0, "-1": 0, "4T": 0, "G": 0, "4GM": 0, "4.5G": 0, "99999999G": 0, "9223372036854775807G": 0,
	} {
		var o options
		err := o.setMemory(text)
		if (err == nil) != (want != 0) || o.memory != want {
			t.Errorf("%q: %d, %v, want %d", text, o.memory, err, want)
		}
	}
}

func TestBadOptions(t *testing.T) {
	for line, want := range map[string]string{
		"":                                 "which command",
		"explode":                          "no command",
		"exec":                             "no command: give one",
		"exec --":                          "no command: give one",
		"exec --cpus 0x1000 -- true":       "--cpus 4096",
		"exec --cpus -1 -- true":           "--cpus -1",
		"exec --cpus many -- true":         "invalid value",
		"exec --icount --cpus 2 -- true":   "one CPU",
		"exec --forward 8443 -- true":      "HOSTPORT:MACHINEPORT",
		"exec --forward 0:1 -- true":       "HOSTPORT:MACHINEPORT",
		"exec --forward 1:65536 -- true":   "HOSTPORT:MACHINEPORT",
		"exec --env =x -- true":            "NAME",
		"exec --timeout -1s -- true":       "--timeout",
		"exec --out f -- true":             "not defined",
		"shell --timeout 1s":               "not defined",
		"prepare now":                      "takes no",
		"initrd":                           "--out",
		"exec --no-module --module d x":    "exclude",
		"exec --cover f -- true":           "--kernel debug",
		"exec --memory 1,file=/etc/x -- x": "can be had",
	} {
		_, err := parseOptions(strings.Fields(line))
		if err == nil {
			t.Errorf("%q: no error", line)
			continue
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q in it", line, err, want)
		}
	}
}

func TestUsageNamesEveryOption(t *testing.T) {
	for command, list := range commands {
		if !strings.Contains(usage, "lab "+command) {
			t.Errorf("usage does not name lab %s", command)
		}
		for name := range strings.FieldsSeq(list) {
			if !strings.Contains(usage, "--"+name) {
				t.Errorf("usage does not name --%s", name)
			}
		}
	}
}
