// SPDX-License-Identifier: Apache-2.0

//go:build lab

package kabi

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/abi"
)

// TestMain runs a child's role or all tests. A test run that leaves a descriptor
// or a VM behind has failed.
func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		os.Exit(playRole(role))
	}
	os.Exit(runAll(m))
}

func runAll(m *testing.M) int {
	d, err := abi.OpenDevice(abi.DevicePath)
	if err != nil {
		fmt.Fprintf(os.Stderr, "kabi: %v: these tests run in the lab, as root, with the module loaded\n", err)
		return 1
	}
	if err := d.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "kabi:", err)
		return 1
	}
	if err := raiseFileLimit(); err != nil {
		fmt.Fprintln(os.Stderr, "kabi:", err)
		return 1
	}
	// The runtime's poller opens its descriptors with the first file it polls.
	if r, w, err := os.Pipe(); err == nil {
		r.Close()
		w.Close()
	}
	before := openFiles()
	code := m.Run()
	if leaked := newFiles(before); len(leaked) > 0 {
		fmt.Fprintln(os.Stderr, "kabi: descriptors left open:", leaked)
		code = max(code, 1)
	}
	if err := nothingLeft(); err != nil {
		fmt.Fprintln(os.Stderr, "kabi:", err)
		code = max(code, 1)
	}
	return code
}

// raiseFileLimit makes room for as many VMs as the module allows.
func raiseFileLimit() error {
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1 << 17, Max: 1 << 17})
}

// openFiles maps the numbers of the process's descriptors to what they are.
func openFiles() map[string]string {
	files := map[string]string{}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return files
	}
	for _, e := range entries {
		if name, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && !strings.Contains(name, "/fd") {
			files[e.Name()] = name
		}
	}
	return files
}

func newFiles(before map[string]string) []string {
	var leaked []string
	for n, name := range openFiles() {
		if _, ok := before[n]; !ok && !strings.Contains(name, "eventpoll") && !strings.Contains(name, "eventfd") {
			leaked = append(leaked, n+"="+name)
		}
	}
	return leaked
}

// nothingLeft looks for VMs that outlived the tests. A killed child's last
// references go with its exit, which may take a moment.
func nothingLeft() error {
	c, err := dialFamily()
	if err != nil {
		return err
	}
	defer c.close()
	var d dumped
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if d, err = c.dump(); err != nil {
			return err
		}
		if len(d.vms) == 0 {
			return nil
		}
	}
	return fmt.Errorf("%d VMs outlived the tests, the first is %+v", len(d.vms), d.vms[0])
}
