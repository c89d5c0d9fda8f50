// SPDX-License-Identifier: Apache-2.0

// Command vmx is the monitor of one virtual machine. vmctld starts it, in
// namespaces of its own, with these descriptors and nothing else:
//
//	0, 1  /dev/null       2  log, a pipe that vmctld reads
//	3     control socket, listening (package ctl)
//	4     console socket, listening (package console/proto)
//	5     scrollback file, read and write
//
// and with the environment of package spec.
//
// It locks itself up, gets its VM over the control socket, and exits with the
// reason for which the VM ended (VMM_REASON_* of vmm.h); 0 when it was told to go
// before the guest ever ran.
//
// The runtime does not look at cgroups while it runs: it can open nothing.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"errors"
	"os"
	"runtime/debug"
	"strings"

	"vmctl/abi"
	"vmctl/monitor/console"
	"vmctl/monitor/jail"
	"vmctl/monitor/listen"
)

// Descriptors that vmctld hands over.
const (
	controlFD = 3
	consoleFD = 4
	scrollFD  = 5
	firstFree = 6
)

func main() {
	// The heap is small, and what it leaves behind is cheap to collect.
	debug.SetGCPercent(20)
	name := vmName(os.Args[1:])
	if err := jail.Enter(firstFree); err != nil {
		logLine(name, "enter", err)
		os.Exit(int(abi.ReasonInternalError))
	}
	m, err := open(name)
	if err != nil {
		logLine(name, "open", err)
		os.Exit(int(abi.ReasonInternalError))
	}
	os.Exit(int(m.serve()))
}

// vmName is the value of --name. The arguments are for people who look at a list
// of processes; nothing else depends on them.
func vmName(args []string) string {
	for i, a := range args {
		if v, ok := strings.CutPrefix(a, "--name="); ok {
			return v
		}
		if a == "--name" && i+1 < len(args) {
			return args[i+1]
		}
	}
	return ""
}

// open takes over the descriptors.
func open(name string) (*monitor, error) {
	m := newMonitor(name)
	scroll, err := console.OpenScroll(os.NewFile(scrollFD, "scrollback"))
	if err != nil {
		return nil, errors.Join(errScroll, err)
	}
	viewers, err := console.Listen(consoleFD)
	if err != nil {
		return nil, err
	}
	control, err := listen.Open(controlFD, "control")
	if err != nil {
		return nil, err
	}
	m.open(control, viewers, scroll)
	return m, nil
}

var errScroll = errors.New("descriptor 5")

// logLine writes one line of key=value pairs to the log. What a guest does is
// never a reason for one.
func logLine(vm, op string, err error) {
	clean := strings.NewReplacer("\n", " ", "\"", "'").Replace(err.Error())
	os.Stderr.WriteString("vmx: vm=" + vm + " op=\"" + op + "\" err=\"" + clean + "\"\n")
}
