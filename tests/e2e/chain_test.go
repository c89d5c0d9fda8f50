// SPDX-License-Identifier: Apache-2.0

//go:build lab

// Package e2e looks at the whole chain from outside, as its users do: the
// command line and a browser, through the front door of a machine in the lab.
package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// root is the checkout.
const root = "../.."

// chain is a running machine with both daemons; its VM "demo" is off.
type chain struct {
	env   []string // VMCTL_URL, VMCTL_USER, VMCTL_PASSWORD, VMCTL_FINGERPRINT, VMCTL_VM
	cmd   *exec.Cmd
	stdin io.Closer
}

// start runs the chain until stop is called.
func start() (*chain, error) {
	cmd := exec.Command(filepath.Join(root, "build/bin/run"), "--port", "0", "--exec", "env | grep ^VMCTL_; echo READY; cat")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &chain{cmd: cmd, stdin: stdin}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		switch line := lines.Text(); {
		case strings.HasPrefix(line, "VMCTL_"):
			c.env = append(c.env, line)
		case line == "READY":
			return c, nil
		default:
			fmt.Println(line)
		}
	}
	return nil, errors.Join(errors.New("the chain did not come up"), lines.Err(), cmd.Wait())
}

func (c *chain) stop() error {
	return errors.Join(c.stdin.Close(), c.cmd.Wait())
}

// get is a value of the environment that the chain gave.
func (c *chain) get(name string) string {
	for _, e := range c.env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}

// theChain is shared by the tests of this package: a machine takes seconds to
// start, and each test makes VMs of its own.
var theChain *chain

func TestMain(m *testing.M) {
	os.Exit(func() int {
		c, err := start()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		theChain = c
		status := m.Run()
		if err := c.stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stopping the chain:", err)
			return 1
		}
		return status
	}())
}

// TestRunCheck is `make run CHECK=1`. How long it may take is measured by make bench:
// here other suites run beside it.
func TestRunCheck(t *testing.T) {
	out, err := exec.Command(filepath.Join(root, "build/bin/run"), "--port", "0", "--check").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "\n    42\n") || !strings.Contains(string(out), "\n    Linux ") {
		t.Errorf("the guest's answer is missing:\n%s", out)
	}
}
