// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"
)

// checkGoal is what make run CHECK=1 may take on a machine that is set up, in seconds.
const checkGoal = 90

// benchChain runs what make run CHECK=1 runs: the machine, both daemons, a guest, and
// its answer on the console.
func benchChain(ctx context.Context, s setup) ([]row, error) {
	fmt.Fprintln(s.progress, "chain: once, about a minute")
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, "run"), "--kernel", s.kernel, "--port", "0", "--check")
	began := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, tail(string(out), 20))
	}
	return []row{limit("make run CHECK=1", "s", time.Since(began).Seconds(), checkGoal)}, nil
}
