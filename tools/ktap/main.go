// SPDX-License-Identifier: Apache-2.0

// Ktap reads a kernel's log and writes the results of the unit tests in it as
// events of go test -json, for the tools that read those. It fails when a test
// failed, when a suite was broken off, and when there is none.
//
//	ktap PACKAGE <LOG >EVENTS
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: ktap PACKAGE <LOG >EVENTS")
		os.Exit(2)
	}
	if err := run(os.Stdin, os.Stdout, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "ktap:", err)
		os.Exit(1)
	}
}

// event is one of go test -json, as much of it as its readers need.
type event struct {
	Action  string
	Package string
	Test    string `json:",omitempty"`
	Output  string `json:",omitempty"`
}

// run writes what each test said and how it ended.
func run(log io.Reader, out io.Writer, pkg string) error {
	suites, err := parse(log)
	if err != nil {
		return err
	}
	enc := json.NewEncoder(out)
	send := func(action, test, output string) {
		if err == nil {
			err = enc.Encode(event{action, pkg, test, output})
		}
	}
	var failed []string
	for _, s := range suites {
		for _, c := range s.cases {
			name := s.name + "/" + c.name
			send("run", name, "")
			for _, line := range c.said {
				send("output", name, line+"\n")
			}
			send(c.action, name, "")
			if c.action == "fail" {
				failed = append(failed, name)
			}
		}
		if why := s.broken(); why != "" {
			send("output", "", s.name+": "+why+"\n")
			failed = append(failed, s.name+": "+why)
		}
	}
	if len(suites) == 0 {
		failed = append(failed, "no suite in the log")
	}
	action := "pass"
	if len(failed) > 0 {
		action = "fail"
	}
	send(action, "", "")
	if err == nil && len(failed) > 0 {
		err = fmt.Errorf("failed: %q", failed)
	}
	return err
}
