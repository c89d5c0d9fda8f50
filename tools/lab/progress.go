// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// progress tells a person what takes long. It writes whole lines, to stderr,
// where they do not mix with the command's output.
type progress struct {
	mu    sync.Mutex
	w     io.Writer
	quiet bool // only complaints
}

// say writes one line.
func (p *progress) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.w, "lab: "+format+"\n", args...)
}

// step says that something begins, and returns what says how it ended, to be
// deferred with the address of the error that the caller returns.
func (p *progress) step(format string, args ...any) (end func(*error)) {
	what, start := fmt.Sprintf(format, args...), time.Now()
	if p.quiet {
		return func(*error) {}
	}
	p.say("%s ...", what)
	return func(err *error) {
		word := "done"
		if *err != nil {
			word = "ended"
		}
		p.say("%s: %s after %.1f s", what, word, time.Since(start).Seconds())
	}
}
