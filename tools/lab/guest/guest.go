// SPDX-License-Identifier: Apache-2.0

// Package guest is the first process of the lab's machine. The lab's own
// binary is the initramfs' /init: it is static, so it needs no shell and no
// busybox, shares its frames with the other side by type, and starts the
// command with its output kept apart from the kernel's.
//
// Its order: modules, root, hello, module under test, command, judgement.
package guest

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"

	"vmctl/tools/lab/wire"
)

// Main is process 1. It never returns: the machine is switched off.
func Main() {
	debug.SetGCPercent(-1) // short-lived; no work of its own beside the command's
	if err := run(); err != nil {
		say("lab: %v", err)
	}
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

func run() error {
	if err := mountEarly(); err != nil {
		return err
	}
	module, err := openModule()
	if err != nil {
		return err
	}
	needed, err := openAll(wire.RootModules)
	if err != nil {
		return err
	}
	others, err := openAll(wire.OtherModules)
	if err != nil {
		return err
	}
	if err := needed.insert(); err != nil {
		return err
	}
	port, err := openPort()
	if err != nil {
		return err
	}
	inserted := make(chan error, 1)
	go func() { inserted <- others.insert() }()
	if err := mountRoot(); err != nil {
		return err
	}
	if err := <-inserted; err != nil {
		return err
	}
	if err := configureNetwork(); err != nil {
		return err
	}
	w := wire.NewWriter(port)
	if err := w.Send(wire.Hello, nil); err != nil {
		return err
	}
	cmd, err := readCommand(port)
	if err != nil {
		return err
	}
	// The port stays open after the last frame: closing it could overtake it.
	return w.SendJSON(wire.Done, serve(cmd, module, port, w))
}

func readCommand(r io.Reader) (wire.Command, error) {
	var cmd wire.Command
	kind, payload, err := wire.Read(r)
	if err != nil {
		return cmd, fmt.Errorf("read command: %w", err)
	}
	if kind != wire.Start {
		return cmd, fmt.Errorf("read command: frame %q instead", kind)
	}
	return cmd, json.Unmarshal(payload, &cmd)
}

// serve runs the command between the two marks and says how it ended.
func serve(cmd wire.Command, module *os.File, port io.Reader, w *wire.Writer) wire.Result {
	say(wire.MarkBegin)
	defer say(wire.MarkEnd)
	l := startLeakScan()
	if cmd.Module {
		if err := insertModule(module); err != nil {
			return wire.Result{Error: err.Error()}
		}
		l.learn()
		if err := dropAnchor(); err != nil {
			return wire.Result{Error: err.Error()}
		}
	}
	res := execute(cmd, port, w)
	if !cmd.Module || res.Leak != "" {
		return res
	}
	l.learn() // it may have been loaded anew
	if res.Leak = removeModule(); res.Leak == "" {
		res.Leak = l.end()
	}
	if err := copyCounts(cmd.Cover); err != nil && res.Error == "" {
		res.Error = err.Error()
	}
	return res
}

// openPort finds the port that leads to the lab.
func openPort() (*os.File, error) {
	names, err := filepath.Glob(wire.PortFolder + "/*/name")
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			return nil, err
		}
		if strings.TrimSpace(string(b)) == wire.PortName {
			return os.OpenFile("/dev/"+filepath.Base(filepath.Dir(n)), os.O_RDWR, 0)
		}
	}
	return nil, fmt.Errorf("no virtio port named %q", wire.PortName)
}

// say writes a line to the kernel log, which the lab reads.
func say(format string, args ...any) {
	f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		return // there is nowhere else to tell it
	}
	defer f.Close()
	fmt.Fprintf(f, "<4>"+format+"\n", args...)
}
