// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Process 1 inherits every orphan, so it reaps them all itself and takes the
// command's status on the way; os/exec's own waiting would leave zombies of
// daemons for a test to stumble over.

// dieTime bounds how long killed processes may take to go.
const dieTime = 20 * time.Second

// reap waits for the process and returns its status as a shell would.
func reap(pid int) int {
	for {
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR) || err == nil && got != pid:
		case err != nil:
			return 1 // cannot be: the process is ours
		case ws.Signaled():
			return 128 + int(ws.Signal())
		case ws.Exited():
			return ws.ExitStatus()
		}
	}
}

// killAll ends every process but this one. What does not go, hangs in the
// kernel; the answer says where.
func killAll() string {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for {
			unix.Kill(-1, unix.SIGKILL)
			_, err := unix.Wait4(-1, nil, 0, nil)
			if err != nil && !errors.Is(err, unix.EINTR) {
				return // ECHILD: nobody is left
			}
		}
	}()
	select {
	case <-gone:
		return ""
	case <-time.After(dieTime):
		return fmt.Sprintf("processes live %v after they were killed:\n%s", dieTime, survivors())
	}
}

// survivors lists the user processes with the place where the kernel holds them.
func survivors() string {
	var b strings.Builder
	dirs, _ := filepath.Glob("/proc/[1-9]*")
	for _, d := range dirs {
		cmdline, err := os.ReadFile(d + "/cmdline")
		if err != nil || len(cmdline) == 0 || d == "/proc/1" {
			continue // a kernel thread has no command line
		}
		stack, _ := os.ReadFile(d + "/stack")
		fmt.Fprintf(&b, "%s %s\n%s", filepath.Base(d), strings.ReplaceAll(string(cmdline), "\x00", " "), stack)
	}
	return b.String()
}
