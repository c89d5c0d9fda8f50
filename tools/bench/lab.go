// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// inLab runs a command in a fresh machine and decodes the last line that it
// prints, which is JSON.
func (s setup) inLab(ctx context.Context, into any, options []string, argv ...string) error {
	args := append([]string{"exec", "--kernel", s.kernel, "--quiet"}, options...)
	cmd := exec.CommandContext(ctx, s.lab, append(append(args, "--"), argv...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, s.progress
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, tail(out.String(), 20))
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), into); err != nil {
		return fmt.Errorf("%s: last line %q: %w", argv[0], lines[len(lines)-1], err)
	}
	return nil
}

// size is the machine's, as options of the lab.
func (s setup) size() []string {
	return []string{"--cpus", strconv.Itoa(s.cpus), "--memory", strconv.Itoa(s.memory)}
}

// tail is the last n lines of text.
func tail(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
