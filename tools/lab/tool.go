// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// tool runs a helper program of the host and keeps what it printed for the
// case that it fails. It dies with the lab.
func tool(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
	return output(cmd)
}

// output runs cmd and returns its standard output. An error carries the last
// line that it wrote to standard error, which is where tools say why.
func output(cmd *exec.Cmd) ([]byte, error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = 2 * time.Second
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	if err := cmd.Run(); err != nil {
		return nil, toolError(cmd.Args[0], err, errs.String(), out.String())
	}
	return out.Bytes(), nil
}

func toolError(name string, err error, texts ...string) error {
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%s is not installed", name)
	}
	for _, text := range texts {
		if line := whyLine(text); line != "" {
			return fmt.Errorf("%s: %v: %s", name, err, line)
		}
	}
	return fmt.Errorf("%s: %w", name, err)
}

// whyLine picks the line of a tool's output that most likely says what is
// wrong: the last one that names an error, else the last one.
func whyLine(text string) string {
	var last, why string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		last = line
		if strings.HasPrefix(line, "E:") || strings.Contains(line, "No space left") || strings.Contains(line, "error:") {
			why = line
		}
	}
	if why != "" {
		return why
	}
	return last
}
